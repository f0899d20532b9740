"""Which statements begin a COPY between the server and the client."""

from __future__ import annotations

import re
from typing import Final

from .statements import BEFORE

_COPY: Final = re.compile((BEFORE + r"copy\b").encode(), re.I)
_ASIDE: Final = re.compile(rb"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/""")
_CLIENT: Final = re.compile(rb"\b(?:from|to)\s+(?:stdin|stdout)\b", re.I)


def copies_to_client(statement: bytes) -> bool:
    """Return True if a statement is a COPY FROM STDIN or TO STDOUT, and not of a server's file."""
    if not _COPY.match(statement):
        return False
    return _CLIENT.search(_ASIDE.sub(b" ", statement)) is not None
