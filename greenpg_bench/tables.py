"""A workload's results as tables, or as lines where the screen is too narrow for a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .model import Metric
    from .runner import Record
    from .session import Result
    from .stats import Verdict

NOTABLE: Final = 0.1  # calls beside the usual ones
UNLIMITED: Final = 10_000  # columns
TARGETS: Final = ("target for", "metric", "asked", "measured", "rounds", "")


def report(console: Console, result: Result) -> Iterator[RenderableType]:
    """Yield what there is to print of a workload's result, in the console's width."""
    yield f"[italic]{result.workload.title}: medians of {result.rounds} rounds[/]"
    present = [record for record in result.records if not record.missing]
    figures = _figures(present, result)
    least = _needed(console, figures).minimum  # headings may be several lines
    yield from [figures] if least <= console.width else _figure_lines(present, result)
    yield from _missing(result.records)
    measured = [verdict for verdict in result.verdicts if verdict.measured is not None]
    if measured:
        targets = _targets(measured)
        whole = _needed(console, targets).maximum
        yield from [targets] if whole <= console.width else _target_lines(measured)
    if len(measured) < len(result.verdicts):
        left = len(result.verdicts) - len(measured)
        yield f"[dim]targets without a measurement: {left}[/]"
    for record in present:
        if record.error:
            yield f"{escape(record.contender.name)} failed: {escape(_last_line(record.error))}"


def _needed(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(width=UNLIMITED), table)


def _figures(records: Sequence[Record], result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    longest = max((len(record.contender.name) for record in records), default=0)
    table.add_column("contender", no_wrap=True, min_width=longest)
    for metric in _shown(result):
        table.add_column(metric.heading, justify="right")
    for record in records:
        table.add_row(escape(record.contender.name), *_cells(record, result))
    return table


def _figure_lines(records: Sequence[Record], result: Result) -> Iterator[str]:
    for record in records:
        yield f"[bold]{escape(record.contender.name)}[/]"
        for metric, cell in zip(_shown(result), _cells(record, result), strict=False):
            yield f"  {metric.heading:<30} {cell}"
    yield ""


def _shown(result: Result) -> list[Metric]:
    return [metric for metric in result.workload.metrics if not metric.detail]


def _cells(record: Record, result: Result) -> list[str]:
    if record.error:
        return ["[red]failed[/]"]
    return [_cell(record, metric) for metric in _shown(result)]


def _cell(record: Record, metric: Metric) -> str:
    value = record.median(metric.key)
    text = "" if value is None else metric.form.format(value)
    if metric.key == "other" and value is not None and value >= NOTABLE:
        return f"[dim]{record.commonest}[/] {text}"
    return text


def _missing(records: Sequence[Record]) -> Iterator[str]:
    """Yield one line that names what is not installed, and how many contenders need it."""
    lacking = [record for record in records if record.missing]
    if lacking:
        modules = dict.fromkeys(name for record in lacking for name in record.missing)
        number = "1 contender" if len(lacking) == 1 else f"{len(lacking)} contenders"
        yield f"[dim]not installed: {', '.join(modules)}; left out: {number}[/]"


def _targets(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in TARGETS:
        table.add_column(heading, no_wrap=heading != "asked")
    for verdict in verdicts:
        target = verdict.target
        table.add_row(target.contender, target.metric, str(target), *_judgement(verdict))
    return table


def _target_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        target = verdict.target
        measured, spread, met = _judgement(verdict)
        rounds = f" ({spread})" if spread else ""
        yield f"[bold]{escape(target.contender)}[/] {target.metric} {escape(str(target))}"
        yield f"  {measured}{rounds}: {met}"


def _judgement(verdict: Verdict) -> tuple[str, str, str]:
    values = verdict.values
    spread = f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
    return f"{verdict.measured:.2f}", spread, "[green]met[/]" if verdict.met else "[red]missed[/]"


def _last_line(error: str) -> str:
    return error.splitlines()[-1]
