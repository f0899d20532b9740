"""Logical decoding with pgoutput: rows of 60 bytes, and of 2 kB."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from typing import Any

from greenpg_bench.drivers import connector, plain_connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders

SHORT, LONG = "60 B", "2 kB"
ROWS = {SHORT: 100_000, LONG: 20_000}
SIZES = {SHORT: 60, LONG: 2000}
TRANSACTIONS = 10
NAMES = ("greenpg/gevent", "greenpg/eventlet", "greenpg/threads", "psycopg2/threads")
_laps = count()


class Source:
    """A table whose changes a temporary slot of the consumer's own session keeps."""

    def __init__(self, cursor: Any, variant: str) -> None:
        self._cursor = cursor
        self._rows, self._size = ROWS[variant], SIZES[variant]

    @contextmanager
    def changes(self, stream: Any) -> Iterator[Mapping[str, object]]:
        """Make the changes; the options with which to stream them."""
        name = f"bench_{os.getpid()}_{next(_laps)}"
        execute = self._cursor.execute
        execute(f"create table {name} (number int, word text storage external)")
        execute(f"create publication {name} for table {name}")
        try:
            stream.execute(f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput")
            for _ in range(TRANSACTIONS):
                execute(
                    f"insert into {name} select n, repeat('x', {self._size})"
                    f" from generate_series(1, {self._rows // TRANSACTIONS}) n"
                )
            options = {"proto_version": 1, "publication_names": name}
            yield {"slot_name": name, "options": options}
        finally:
            execute(f"drop publication {name}")
            execute(f"drop table {name}")


def _consumer(messages: int, stop: type[Exception]) -> Callable[[Any], None]:
    left = messages

    def consume(message: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise stop

    return consume


def _prepare(job: Job) -> Lap:
    contender, variant = job.contender, job.contender.variant
    source = Source(connector(contender)(job.dsn).cursor(), variant)
    connect: Callable[..., Any] = plain_connector(job.contender)
    module = "greenpg.extras" if contender.driver == "greenpg" else "psycopg2.extras"
    factory = import_module(module).LogicalReplicationConnection
    tasks = crew(HOSTS[contender.host], 1)
    stop: type[Exception] = import_module("psycopg2.extras").StopReplication
    messages = ROWS[variant] + 2 * TRANSACTIONS  # and where each transaction begins and ends

    def consume(stream: Any) -> None:
        with suppress(stop):
            stream.consume_stream(_consumer(messages, stop))

    def measure() -> Sample:
        connection = connect(job.dsn, connection_factory=factory)
        stream = connection.cursor()
        with source.changes(stream) as arguments:
            stream.start_replication(**arguments)
            with meter() as reading:
                tasks.start(consume, stream)
                tasks.finish()
            connection.close()
        return {"rate": messages / reading.wall, "cpu": reading.cpu / messages * 1e6}

    return measure


WORKLOAD = Workload(
    name="replication",
    title="consume_stream of inserted rows",
    groups=tuple(contenders(*NAMES, variant=size) for size in (SHORT, LONG)),
    metrics=(
        Metric("rate", "messages/s", "{:,.0f}"),
        Metric("cpu", "client CPU, us/message", "{:.2f}"),
    ),
    targets=tuple(
        Target(
            f"greenpg/{host} {variant}", "rate", least, f"psycopg2/threads {variant}", at_least=True
        )
        for variant, least in ((SHORT, 0.75), (LONG, 0.9))
        for host in LIBRARIES
    ),
    prepare=_prepare,
    units=1,
    rounds=9,
    quick=3,
)
