"""How SQL statements begin."""

from __future__ import annotations

from typing import Final

# A comment's newline belongs to it: without, "--copy" could be read as "--" and a statement.
BEFORE: Final = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
