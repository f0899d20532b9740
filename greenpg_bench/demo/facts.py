"""The table of all runs at the end of the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .job import TICK
from .picture import seconds

if TYPE_CHECKING:
    from .record import Record

COLUMNS: Final = ("wall", "queries", "at once", "longest stall", "ticks")


def facts(records: Sequence[Record]) -> RenderableType:
    """Return a table of the runs; the reasons of failed runs are below it."""
    table = table_of(*COLUMNS)
    for record in records:
        if not (record.missing or record.error):
            table.add_row(record.job.name, *_cells(record))
    explained = (
        "wall: duration of the job; queries: sum of their durations; at once: the largest number "
        "that ran together; longest stall: the largest delay of a ticker, a separate task that is "
        f"due every {seconds(TICK)}."
    )
    return Group(table, Text(explained, "dim"), *troubles(records))


def table_of(*columns: str, no_wrap: bool = True) -> Table:
    """Return an empty table of runs."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def troubles(records: Sequence[Record]) -> Iterator[Text]:
    """Yield why runs have no figures."""
    for record in records:
        if text := record.missing or record.error:
            yield Text(f"{record.job.name}: {text}")


def _cells(record: Record) -> tuple[str, ...]:
    wall = record.wall or 0.0
    return (
        f"{wall:.2f} s",
        f"{record.job.in_a_row:.2f} s",
        str(record.at_once),
        seconds(record.longest_stall),
        f"{len(record.ticks) - 1}/{wall / TICK:.0f}",
    )
