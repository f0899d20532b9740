"""Large objects, written and read in calls of 64 and 256 KB."""

from __future__ import annotations

from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LIBRARIES, Job, Lap, Metric, Sample, Target, Workload, contenders
from greenpg_bench.ticker import stall

MEGABYTES = 24
KILOBYTE = 1024
SIZES = ("64 KB", "256 KB")
NAMES = (
    "greenpg/gevent", "greenpg/eventlet", "greenpg/threads", "psycopg2/threads", "psycopg2/gevent",
)  # fmt: skip


def _write(lob: Any, data: bytes) -> None:
    for _ in range(MEGABYTES * KILOBYTE * KILOBYTE // len(data)):
        lob.write(data)


def _read(lob: Any, data: bytes) -> None:
    lob.seek(0)
    while lob.read(len(data)):
        pass


def _prepare(job: Job) -> Lap:
    connection: Any = connector(job.contender)(job.dsn)
    connection.autocommit = False
    tasks = crew(HOSTS[job.contender.host], 1)
    data = bytes(range(256)) * (int(job.contender.variant.split()[0]) * 4)

    def measure() -> Sample:
        written = connection.lobject(0, "wb")
        with meter() as writing:
            _write(written, data)
        written.close()
        lob = connection.lobject(written.oid, "rb")
        with meter() as reading:
            _read(lob, data)
        held_up = stall(tasks, lambda: _read(lob, data))
        connection.rollback()
        return {
            "write": MEGABYTES / writing.wall,
            "read": MEGABYTES / reading.wall,
            "cpu": (writing.cpu + reading.cpu) / (2 * MEGABYTES) * 1e3,
            "stall": held_up * 1e3,
        }

    return measure


def _targets(size: str, host: str) -> tuple[Target, ...]:
    name, peer = f"greenpg/{host} {size}", f"psycopg2/threads {size}"
    return (
        Target(name, "write", 0.6, peer, at_least=True),
        Target(name, "read", 0.6, peer, at_least=True),
        Target(name, "stall", 10.0),
    )


WORKLOAD = Workload(
    name="lobject",
    title=f"large objects of {MEGABYTES} MB",
    groups=tuple(contenders(*NAMES, variant=size) for size in SIZES),
    metrics=(
        Metric("write", "written, MB/s"),
        Metric("read", "read, MB/s"),
        Metric("cpu", "client CPU, ms/MB", "{:.2f}"),
        Metric("stall", "longest stall above idle, ms"),
    ),
    targets=tuple(
        target for size in SIZES for host in LIBRARIES for target in _targets(size, host)
    ),
    prepare=_prepare,
    units=MEGABYTES,
    rounds=7,
    quick=2,
)
