"""The facts at the end, run beside run."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Set the runs beside each other; runs without figures say why below the table."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("run", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        if not (record.missing or record.error):
            table.add_row(f"{record.job.driver} on {record.job.backend}", *_cells(record))
    explained = (
        "wall: how long the job took; queries: their lengths added up; at once: how many ran "
        f"together at most; longest stall: how late a ticker, a task of its own that is due every "
        f"{seconds(TICK)}, got its turn."
    )
    trouble = [Text(line) for record in records if (line := _trouble(record))]
    return Group(table, Text(explained, "dim"), *trouble)


def _trouble(record: Record) -> str:
    """Say why a run has no figures, if it has none."""
    text = record.missing or record.error
    return text and f"{record.job.driver} on {record.job.backend}: {text}"


def _cells(record: Record) -> tuple[str, ...]:
    wall = record.wall or 0.0
    return (
        f"{wall:.2f} s",
        f"{record.job.in_a_row:.2f} s",
        str(record.at_once),
        seconds(record.longest_stall),
        f"{len(record.ticks) - 1}/{wall / TICK:.0f}",
    )
