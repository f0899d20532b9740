"""The live picture: one lane per connection and the ticker below, on the same time line."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .job import TICK

if TYPE_CHECKING:
    from .record import Record

LABEL: Final = 7
COUNT: Final = 8
NARROWEST: Final = 20
AROUND: Final = 6  # lines besides the lanes
ALARMING: Final = 0.02  # seconds of a stall

Cell: TypeAlias = tuple[str, str]  # a character and its style
EMPTY: Final[Cell] = (" ", "")


class Glyphs(NamedTuple):
    """The characters for a terminal: alternating queries, the running one, a tick."""

    query: tuple[Cell, Cell]
    running: Cell
    tick: Cell


BLOCKS: Final = Glyphs((("█", "cyan"), ("▓", "blue")), ("▒", "yellow"), ("•", "green"))
ASCII: Final = Glyphs((("#", "cyan"), ("=", "blue")), ("-", "yellow"), (".", "green"))


class View(NamedTuple):
    """The visible part of the time line, in seconds, and its width in columns."""

    start: float
    span: float
    width: int

    def column(self, at: float) -> int:
        """Return the column of a moment, or the nearest edge if it is outside the view."""
        column = int((at - self.start) / self.span * self.width)
        return min(max(column, 0), self.width)


class Picture:
    """Draws a record for a screen of a given size."""

    def __init__(self, record: Record, width: int, height: int, glyphs: Glyphs = BLOCKS) -> None:
        self._record = record
        self._width = max(width - LABEL - COUNT, NARROWEST)
        self._shown = max(1, height - AROUND)
        self._glyphs = glyphs

    def draw(self, now: float) -> RenderableType:
        """Return the picture of the run at `now`, in seconds since its start."""
        record = self._record
        now = now if record.wall is None else record.wall
        span = record.job.at_best * 1.1
        view = View(max(0.0, now - span), span, self._width)
        return Group(
            title(record),
            *self._lanes(view, now),
            self._row("ticker", self._ticks(view), ""),
            self._axis(view),
            self._state(now),
        )

    def _lanes(self, view: View, now: float) -> list[Text]:
        lanes = self._record.lanes
        shown = lanes if len(lanes) <= self._shown else lanes[: self._shown - 1]
        rows = [
            self._row(f"{n:>6}", self._bars(n - 1, view, now), f"{len(lane.bars)}/{lane.total}")
            for n, lane in enumerate(shown, 1)
        ]
        if len(shown) < len(lanes):
            rows.append(Text(f"       and {len(lanes) - len(shown)} more connections", "dim"))
        return rows

    def _bars(self, number: int, view: View, now: float) -> list[Cell]:
        lane = self._record.lanes[number]
        cells = [EMPTY] * view.width
        for turn, (begin, end) in enumerate(lane.bars):
            _paint(cells, view, begin, end, self._glyphs.query[turn % 2])
        since = lane.running_since()
        if since is not None:
            _paint(cells, view, since, now, self._glyphs.running)
        return cells

    def _ticks(self, view: View) -> list[Cell]:
        cells = [EMPTY] * view.width
        for at in self._record.ticks:
            if view.start <= at < view.start + view.span:
                _paint(cells, view, at, at + 1.5 * TICK, self._glyphs.tick)
        return cells

    def _row(self, label: str, cells: list[Cell], count: str) -> Text:
        row = Text(f"{label:<{LABEL}}", no_wrap=True, overflow="crop")
        for (glyph, style), run in groupby(cells):
            row.append(glyph * len(list(run)), style)
        return row.append(f"{count:>{COUNT}}", "dim")

    def _axis(self, view: View) -> Text:
        left, right = f"{view.start:.2f} s", f"{view.start + view.span:.2f} s"
        gap = " " * (view.width - len(left) - len(right))
        return Text(f"{' ' * LABEL}{left}{gap}{right}", "dim", no_wrap=True, overflow="crop")

    def _state(self, now: float) -> RenderableType:
        record = self._record
        stall = 0.0 if record.wall is not None else record.stall(now)
        longest = max(stall, record.longest_stall)
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(
            f"{record.done}/{record.job.tasks} queries  {now:.1f} s",
            ProgressBar(total=record.job.tasks, completed=record.done),
            Text.assemble("stall ", _alarming(stall), "  longest ", _alarming(longest)),
        )
        return line


def title(record: Record) -> Text:
    """Return the run's title: driver, backend and numbers."""
    job = record.job
    return Text.assemble(
        (job.name, "bold"),
        f": {job.tasks} tasks share {job.connections} connections",
        no_wrap=True,
        overflow="ellipsis",
    )


def seconds(value: float) -> str:
    """Return a duration as text, in milliseconds if it is below a second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _alarming(stall: float) -> tuple[str, str]:
    return f"{seconds(stall):>7}", "bold red" if stall > ALARMING else "green"


def _paint(cells: list[Cell], view: View, begin: float, end: float, cell: Cell) -> None:
    first, last = view.column(begin), view.column(end)
    cells[first:last] = [cell] * (last - first)
