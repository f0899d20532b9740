"""What is known of the texts that were executed."""

from __future__ import annotations

import re
from typing import Final

from ._scan import is_open, refusal

KEPT: Final = 1000  # texts; where a program makes them one by one, most come only once
_LITERAL: Final = re.compile(r"'[^']*'|\b\d[\d.]*")


class Pace:
    """How long statements of one shape run: the seconds that the last one took."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Text:
    """One text: why it is refused, and what it is without parameters once that is known."""

    __slots__ = ("is_open", "pace", "refusal", "sql")

    def __init__(self, query: str, pace: Pace) -> None:
        self.refusal = refusal(query)
        self.is_open = is_open(query)
        self.pace = pace
        self.sql: bytes | None = None


class Texts(dict[str, Text]):
    """Texts by what they are, as far as they are kept."""

    def __init__(self, slow: float) -> None:
        self._slow = slow
        self._paces: dict[str, Pace] = {}

    def __missing__(self, query: str) -> Text:
        if len(self) >= KEPT:
            self.clear()
        text = self[query] = Text(query, self.pace(query))
        return text

    def pace(self, query: str) -> Pace:
        """Return the pace of texts that differ from this one in literals alone."""
        shape = _LITERAL.sub("?", query)
        found = self._paces.get(shape)
        if found is None:
            if len(self._paces) >= KEPT:
                self._paces.clear()
            found = self._paces[shape] = Pace(self._slow)
        return found
