"""All runs on one time axis: half a line for each tenth of the tasks, where its queries run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from .record import Bar, Record

LABEL: Final = 24
GROUPS: Final = 10
EXPLAINED: Final = "Each half line is a tenth of the tasks, marked while their queries run."
STYLES: Final = {"greenpg": "green", "psycogreen": "cyan", "psycopg2": "yellow"}
BLOCKS: Final = " ▀▄█"  # neither, the upper, the lower, both
ASCII: Final = ' "_#'


def overview(records: Sequence[Record], width: int, glyphs: str = BLOCKS) -> RenderableType:
    """Return the finished runs, one under the other, with the longest one's time as the axis."""
    finished = [record for record in records if record.wall]
    if not finished:
        return Text("")
    span = max(record.wall or 0.0 for record in finished)
    columns = max(width - LABEL, 10)
    parts = [line for record in finished for line in _run(record, span, columns, glyphs)]
    end = f"{span:.1f} s"
    axis = _line("", f"{'0 s':<{columns - len(end)}}{end}", "dim")
    return Group(*parts, axis, Text(EXPLAINED, "dim"))


def _run(record: Record, span: float, columns: int, glyphs: str) -> Iterator[Text]:
    job = record.job
    labels = [job.name, f"  {record.wall:.2f} s"]
    busy = [_busy(bars, span / columns, columns) for bars in _groups(record)]
    rows = [_row(busy[n : n + 2], columns, glyphs) for n in range(0, GROUPS, 2)]
    for label, row in zip_longest(labels, rows, fillvalue=""):
        yield _line(label, row, STYLES.get(job.driver, ""))
    yield Text("")


def _line(label: str, row: str, style: str) -> Text:
    """Return a line whose blanks have no style, so that an SVG places the rest by itself."""
    line = Text(f"{label:<{LABEL}}", no_wrap=True, overflow="crop")
    for is_blank, run in groupby(row, str.isspace):
        line.append("".join(run), "" if is_blank else style)
    return line


def _groups(record: Record) -> list[list[Bar]]:
    """Return the queries of each tenth of the tasks; a connection serves its tasks in order."""
    groups: list[list[Bar]] = [[] for _ in range(GROUPS)]
    for number, lane in enumerate(record.lanes):
        for turn, bar in enumerate(lane.bars):
            task = number + turn * record.job.connections
            groups[task * GROUPS // record.job.tasks].append(bar)
    return groups


def _row(busy: Sequence[set[int]], columns: int, glyphs: str) -> str:
    """Return a line of two groups, the first one in the upper halves."""
    upper, lower = busy
    return "".join(glyphs[(column in upper) + 2 * (column in lower)] for column in range(columns))


def _busy(bars: Sequence[Bar], step: float, columns: int) -> set[int]:
    """Return the columns in which queries run for at least half of the time."""
    seconds = [0.0] * (columns + 1)
    for begin, end in bars:
        for column in range(int(begin / step), min(int(end / step), columns) + 1):
            start = column * step
            seconds[column] += min(end, start + step) - max(begin, start)
    return {column for column in range(columns) if seconds[column] >= step / 2}
