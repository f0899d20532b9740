"""10,000 green threads share 20 connections through a plain queue; 100 do the same work.

gevent's queue searches all who wait each time that one goes on: 60 us on average, and a cache
that holds nothing else then. psycogreen beside greenpg tells what this takes from any driver.
"""

from __future__ import annotations

from typing import cast

from greenpg_bench.drivers import Connection, connector
from greenpg_bench.hosts import HOSTS, Crew, Queue, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Contender, Job, Lap, Metric, Sample, Target, Workload
from greenpg_conformance.toolkit.memory import resident

CONNECTIONS = 20
MANY, FEW = "10000", "100"
UNITS = 200_000  # 20 for each of many


def _take_turns(queue: Queue, times: int) -> None:
    for _ in range(times):
        connection = cast("Connection", queue.get())
        try:
            cursor = connection.cursor()
            cursor.execute("select 1")
            cursor.fetchone()
        finally:
            queue.put(connection)


def _line_up(tasks: Crew, queue: Queue, count: int, times: int) -> None:
    started = 0

    def work() -> None:
        nonlocal started
        started += 1
        _take_turns(queue, times)

    for _ in range(count):
        tasks.start(work)
    while started < count:
        tasks.sleep(0)


def _prepare(job: Job) -> Lap:
    connect = connector(job.contender)
    connections = [connect(job.dsn) for _ in range(CONNECTIONS)]
    count = int(job.contender.variant)
    tasks = crew(HOSTS[job.contender.host], count)
    memory: dict[str, float] = {}

    def measure() -> Sample:
        queue = tasks.queue()
        before = resident()
        _line_up(tasks, queue, count, UNITS // count)
        # Later laps find memory that the first one has made the process ask for.
        memory.setdefault("memory", (resident() - before) / count / 1024)
        with meter() as reading:
            for connection in connections:
                queue.put(connection)
            tasks.finish()
        return {"rate": UNITS / reading.wall, "cpu": reading.cpu / UNITS * 1e6, **memory}

    return measure


WORKLOAD = Workload(
    name="crowd",
    title=f"{MANY} and {FEW} green threads over {CONNECTIONS} connections in a queue",
    groups=tuple(
        tuple(
            Contender(driver, host, tasks)
            for driver in ("greenpg", "psycogreen")
            for tasks in (MANY, FEW)
        )
        for host in LIBRARIES
    ),
    metrics=(
        Metric("rate", "queries/s", "{:,.0f}"),
        Metric("cpu", "client CPU, us/query"),
        Metric("memory", "KiB per waiting thread"),
    ),
    targets=tuple(
        Target(f"greenpg/{host} {MANY}", "rate", 0.9, f"greenpg/{host} {FEW}", at_least=True)
        for host in LIBRARIES
    ),
    prepare=_prepare,
    units=UNITS,
    rounds=3,
    quick=1,
    pinned=True,
)
