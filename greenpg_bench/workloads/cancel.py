"""A query is cancelled over a round trip of 100 ms, beside a ticker."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg2

from greenpg_bench.drivers import connector
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.model import LIBRARIES, Contender, Job, Lap, Metric, Sample, Target, Workload
from greenpg_bench.ticker import stall
from greenpg_conformance.toolkit.proxy import Proxy

ROUND_TRIP = 0.1
UNITS = 1


def _prepare(job: Job) -> Lap:
    proxy = Proxy(job.dsn)  # its process ends with this one
    connection: Any = connector(job.contender)(proxy.dsn)
    proxy.delay(ROUND_TRIP)
    tasks, ticking = (crew(HOSTS[job.contender.host], 1) for _ in range(2))

    def sleep() -> None:
        with suppress(psycopg2.extensions.QueryCanceledError):
            connection.cursor().execute("select pg_sleep(60)")

    def measure() -> Sample:
        tasks.start(sleep)
        tasks.sleep(2 * ROUND_TRIP)
        held_up = stall(ticking, connection.cancel)
        tasks.finish()
        return {"stall": held_up * 1e3}

    return measure


WORKLOAD = Workload(
    name="cancel",
    title=f"cancel at {ROUND_TRIP * 1e3:.0f} ms of round trip",
    groups=(
        tuple(
            Contender(driver, host) for host in LIBRARIES for driver in ("greenpg", "psycogreen")
        ),
    ),
    metrics=(Metric("stall", "longest stall above idle, ms"),),
    targets=tuple(Target(f"greenpg/{host}", "stall", 10.0) for host in LIBRARIES),
    prepare=_prepare,
    units=UNITS,
    rounds=9,
    quick=3,
)
