"""The last pictures of the demo: all runs on one time axis, and what kills have left."""

from __future__ import annotations

import pytest
from rich.console import Console

from greenpg_bench.demo.job import Job
from greenpg_bench.demo.kills import after_kills
from greenpg_bench.demo.overview import ASCII, LABEL, overview
from greenpg_bench.demo.record import Record

TASKS, CONNECTIONS = 20, 2


def record_of(driver: str, *, at_once: bool) -> Record:
    """A run of queries of a second each, on both connections at once or in a row."""
    record = Record(Job("gevent", driver, "", TASKS, CONNECTIONS))
    for task in range(TASKS):
        begin = float(task // CONNECTIONS if at_once else task)
        record.lanes[task % CONNECTIONS].bars.append((begin, begin + 1))
    record.wall = float(TASKS // CONNECTIONS if at_once else TASKS)
    return record


def shown(renderable: object, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [50, 80, 140])
def test_runs_share_the_axis_of_the_longest(width):
    records = [record_of("greenpg", at_once=True), record_of("psycopg2", at_once=False)]

    lines = shown(overview(records, width, ASCII), width)

    assert max(map(len, lines)) <= width
    ends = [len(line.rstrip()) - LABEL for line in lines[:5]]
    assert max(ends) == pytest.approx((width - LABEL) / 2, abs=1)
    first, last = lines[6], lines[10]
    assert first.startswith("psycopg2 on gevent")
    assert len(first.rstrip()) - LABEL == pytest.approx((width - LABEL) / 5, abs=1)
    assert len(last.rstrip()) == pytest.approx(width, abs=1)


def test_run_that_failed_has_no_lines():
    failed = Record(Job("gevent", "greenpg", ""))

    assert shown(overview([failed], 80, ASCII), 80) == [""]


def test_kills_are_told_in_numbers():
    killed = Record(Job("gevent", "psycogreen", "", tasks=50, kills=True))
    killed.usable, killed.running = 0, 10
    missing = Record(Job("eventlet", "psycogreen", "", tasks=50, kills=True))
    missing.missing = "not installed"

    lines = shown(after_kills([killed, missing]), 80)

    assert lines[0] == "50 tasks killed in the midst of their queries"
    rows = [line.split() for line in lines]
    assert ["psycogreen", "on", "gevent", "0", "of", "10", "10"] in rows
    assert "psycogreen on eventlet: not installed" in lines
