"""COPY FROM and TO of 160 MB of CSV."""

from __future__ import annotations

import os
from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders
from greenpg_bench.ticker import stall

MEGABYTES = 160  # a lap
TICKING = 20  # of them once more beside a ticker, whose CPU time must not count
ROWS = 10_000  # in a megabyte, of 100 bytes
BLOCK = 65536
FROM, TO = "FROM", "TO"
NAMES = (
    "greenpg/gevent", "greenpg/eventlet", "greenpg/threads",
    "psycopg2/threads", "psycopg/gevent", "psycopg2/gevent", "greenpg3/gevent", "greenpg3/eventlet",
)  # fmt: skip


class Source:
    """A file of so many megabytes, in rows of a number and a text."""

    def __init__(self, megabytes: int) -> None:
        self._data = b"".join(b"%07d,%s\n" % (number, b"x" * 91) for number in range(ROWS))
        self._left = megabytes
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end of a megabyte."""
        if not self._left:
            return b""
        found = self._data[self._position : self._position + size]
        self._position += len(found)
        if self._position == len(self._data):
            self._position, self._left = 0, self._left - 1
        return found


def _copy_from(cursor: Any, megabytes: int, blocks: bool) -> None:
    statement, source = "copy bench_copy from stdin (format csv)", Source(megabytes)
    if blocks:
        with cursor.copy(statement) as copy:
            while data := source.read(BLOCK):
                copy.write(data)
    else:
        cursor.copy_expert(statement, source)


def _copy_to(cursor: Any, megabytes: int, blocks: bool) -> None:
    rows = f"select repeat('x', 99) from generate_series(1, {megabytes * ROWS})"
    statement = f"copy ({rows}) to stdout (format csv)"
    with open(os.devnull, "wb") as file:
        if blocks:
            with cursor.copy(statement) as copy:
                for data in copy:
                    file.write(data)
        else:
            cursor.copy_expert(statement, file)


def _prepare(job: Job) -> Lap:
    contender = job.contender
    cursor = connector(contender)(job.dsn).cursor()
    cursor.execute("create temp table bench_copy (number int, word text)")
    tasks = crew(HOSTS[contender.host], 1)
    copy = {FROM: _copy_from, TO: _copy_to}[contender.variant]
    blocks = contender.driver in ("psycopg", "greenpg3")  # which know no files

    def measure() -> Sample:
        cursor.execute("truncate bench_copy")
        with meter() as reading:
            copy(cursor, MEGABYTES, blocks)
        held_up = stall(tasks, lambda: copy(cursor, TICKING, blocks)) * 1e3
        rate, cpu = MEGABYTES / reading.wall, reading.cpu / MEGABYTES * 1e3
        return {"rate": rate, "cpu": cpu, "stall": held_up}

    return measure


def _targets(way: str, cpu: float, host: str) -> tuple[Target, ...]:
    name = f"greenpg/{host} {way}"
    return (
        Target(name, "rate", 0.95, f"psycopg2/threads {way}", at_least=True),
        Target(name, "rate", 1.0, f"psycopg/gevent {way}", at_least=True),
        Target(name, "cpu", cpu, f"psycopg2/threads {way}"),
        Target(name, "stall", 10.0),
    )


def _psycopg3_targets(way: str, host: str) -> tuple[Target, ...]:
    name = f"greenpg3/{host} {way}"
    return (
        Target(name, "rate", 1.0, f"psycopg/gevent {way}", at_least=True),
        Target(name, "stall", 10.0),
    )


WORKLOAD = Workload(
    name="copy",
    title=f"COPY of {MEGABYTES} MB of CSV a round",
    groups=tuple(contenders(*NAMES, variant=way) for way in (FROM, TO)),
    metrics=(
        Metric("rate", "MB/s"),
        Metric("cpu", "client CPU, ms/MB", "{:.2f}"),
        Metric("stall", "longest stall above idle, ms"),
    ),
    targets=tuple(
        target
        for way, cpu in ((FROM, 1.6), (TO, 2.0))
        for host in LIBRARIES
        for target in (*_targets(way, cpu, host), *_psycopg3_targets(way, host))
    ),
    prepare=_prepare,
    units=MEGABYTES,
    rounds=10,
    quick=2,
)
