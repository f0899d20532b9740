"""The tables of `greenpg bench`: everything is readable at every width."""

from __future__ import annotations

import pytest
from rich.console import Console

from greenpg_bench.model import Contender, Metric, Target, Workload
from greenpg_bench.runner import Record
from greenpg_bench.session import Result
from greenpg_bench.stats import judge
from greenpg_bench.tables import report
from greenpg_bench.workloads import NAMES, find


def result_of(workload: Workload, *lacking: str) -> Result:
    """A result in which each measurement of a contender is its number."""
    contenders = [contender for group in workload.groups for contender in group]
    records = [Record(contender) for contender in contenders]
    for number, record in enumerate(records, 1):
        record.missing = tuple(lacking) if record.contender.driver in lacking else ()
        if not record.missing:
            record.samples = [{metric.key: number * 1000.0 for metric in workload.metrics}]
    samples = {record.contender.name: record.samples for record in records}
    verdicts = [judge(target, samples) for target in workload.targets]
    return Result(workload, records, verdicts, 1, [])


def printed(result: Result, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for part in report(console, result):
            console.print(part, highlight=False)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 130])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off(name, width):
    workload = find(name)

    lines = printed(result_of(workload), width)

    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    for group in workload.groups:
        for contender in group:
            assert any(contender.name in line for line in lines)


@pytest.mark.parametrize(("width", "is_table"), [(60, False), (130, True)])
def test_contender_is_a_row_or_a_paragraph(width, is_table):
    heading = "client CPU of a most uncommonly thorough benchmark"
    metrics = tuple(Metric(f"m{n}", "uncommonly-long-heading") for n in range(4))
    one = Contender("greenpg", "gevent")
    workload = Workload("w", heading, ((one,),), metrics, (), lambda _: dict, 1, 1, 1)

    lines = printed(result_of(workload), width)

    row = next(line for line in lines if one.name in line)
    assert (row.split() == [one.name, *["1000.0"] * 4]) is is_table


def test_missing_libraries_are_one_line():
    lines = printed(result_of(find("select1"), "asyncpg", "psycogreen"), 80)

    told = [line for line in lines if "not installed" in line]
    assert len(told) == 1
    assert "psycogreen" in told[0]
    assert not any(line.strip().startswith("psycogreen/") for line in lines)


def test_target_without_a_measurement_is_counted():
    contenders = (Contender("greenpg", "gevent"), Contender("psycogreen", "gevent"))
    target = Target("greenpg/gevent", "cpu", 1.0, "psycogreen/gevent")
    workload = Workload(
        "w", "title", (contenders,), (Metric("cpu", "CPU"),), (target,), lambda _: dict, 1, 1, 1
    )

    lines = printed(result_of(workload, "psycogreen"), 80)

    assert "targets without a measurement: 1" in lines
