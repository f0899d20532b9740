"""`with pool.connection()` by one task that never has to wait."""

from __future__ import annotations

from greenpg_bench.meter import meter
from greenpg_bench.model import Job, Lap, Metric, Sample, Target, Workload, contenders
from greenpg_bench.pools import lender

UNITS = 5000
SIZE = 4


def _prepare(job: Job) -> Lap:
    lend = lender(job.contender, job.dsn, SIZE)

    def lap(times: int) -> None:
        for _ in range(times):
            with lend():
                pass

    lap(100)

    def measure() -> Sample:
        lap(10)  # the first loan after a rest costs a ping
        with meter() as reading:
            lap(UNITS)
        return {"cpu": reading.cpu / UNITS * 1e6}

    return measure


WORKLOAD = Workload(
    name="pool",
    title="with pool.connection(), nobody waiting",
    groups=(
        contenders("greenpg/gevent", "psycopg_pool/gevent", "QueuePool/gevent", "example/gevent"),
        contenders("greenpg/eventlet", "QueuePool/eventlet", "db_pool/eventlet"),
    ),
    metrics=(Metric("cpu", "client CPU, us/loan", "{:.2f}"),),
    targets=(Target("greenpg/gevent", "cpu", 2.5), Target("greenpg/eventlet", "cpu", 2.5)),
    prepare=_prepare,
    units=UNITS,
    rounds=20,
    quick=5,
)
