"""The doctor's rows as text, for a terminal of any width; it needs no library."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .rows import Row

SIGNS: Final = {"good": "good", "fact": "", "note": "note", "bad": "BAD"}
SIGN_WIDTH: Final = 5
NARROWEST: Final = 20  # columns for the facts
BOLD, RED, GREEN, YELLOW = "1", "1;31", "32", "33"  # ECMA-48, 8.3.117
COLOURS: Final = {"good": GREEN, "note": YELLOW, "bad": RED}


class Table:
    """Lays out rows in `width` columns; with `colours` by a terminal's escape sequences."""

    def __init__(self, width: int, *, colours: bool = False) -> None:
        self._width = width
        self._colours = colours

    def lines(self, rows: list[Row]) -> Iterator[str]:
        """Yield the lines of the table, and the verdict as the last one."""
        names = SIGN_WIDTH + max((len(row.name) for row in rows), default=0) + 4
        for section, of_section in groupby(rows, key=lambda row: row.section):
            yield " " * SIGN_WIDTH + self._styled(section, BOLD)
            for row in of_section:
                yield from self._row(row, names)
        yield ""
        yield self._verdict(rows)

    def _row(self, row: Row, indent: int) -> Iterator[str]:
        sign = self._styled(f"{SIGNS[row.state]:<{SIGN_WIDTH}}", COLOURS.get(row.state, ""))
        first, *more = self._wrapped(row.fact, indent) or [""]
        yield f"{sign}  {row.name:<{indent - SIGN_WIDTH - 2}}{first}".rstrip()
        for line in more:
            yield " " * indent + line
        for line in self._wrapped(f"-> {row.remedy}", indent) if row.remedy else ():
            yield " " * indent + self._styled(line, BOLD)

    def _wrapped(self, text: str, indent: int) -> list[str]:
        return textwrap.wrap(text, max(self._width - indent, NARROWEST), break_on_hyphens=False)

    def _verdict(self, rows: list[Row]) -> str:
        bad = [f"{row.section}: {row.name}" for row in rows if row.state == "bad"]
        if not bad:
            return self._styled("green", GREEN)
        return f"{self._styled('not green', RED)}: {', '.join(bad)}"

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and code and text.strip() else text
