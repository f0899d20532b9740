"""A result of 1,000 rows, and a join of six tables whose plan costs more than its rows."""

from __future__ import annotations

from typing import Any

from greenpg_bench.drivers import connector
from greenpg_bench.meter import meter
from greenpg_bench.model import Job, Lap, Metric, Sample, Target, Workload, contenders

TIMES = 100
PAGE, JOIN = "1,000 rows", "join"
QUERIES: dict[str, tuple[str, tuple[object, ...]]] = {
    PAGE: ("select n, n::text, n * 1.5, now(), n %% 2 = 0 from generate_series(1, %s) n", (1000,)),
    JOIN: (
        """
        select c.relname, n.nspname, a.attname, t.typname, r.rolname, m.amname
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid
        join pg_type t on t.oid = a.atttypid
        join pg_authid r on r.oid = c.relowner
        join pg_am m on m.oid = c.relam
        where c.oid = %s and a.attnum = %s
        """,
        (1259, 1),
    ),
}


def _prepare(job: Job) -> Lap:
    query, parameters = QUERIES[job.contender.variant]
    cursor: Any = connector(job.contender)(job.dsn).cursor()

    def lap() -> None:
        for _ in range(TIMES):
            cursor.execute(query, parameters)
            cursor.fetchall()

    def measure() -> Sample:
        with meter() as reading:
            lap()
        return {"cpu": reading.cpu / TIMES * 1e6, "wall": reading.wall / TIMES * 1e6}

    lap()
    return measure


WORKLOAD = Workload(
    name="queries",
    title="a result of 1,000 rows and 5 columns; a join of six tables again and again",
    groups=(
        contenders(
            *("greenpg/gevent", "greenpg/eventlet", "greenpg3/gevent", "greenpg3/eventlet"),
            *("psycopg/gevent", "psycopg2/threads"),
            variant=PAGE,
        ),
        contenders(
            *("greenpg/gevent", "greenpg/eventlet", "greenpg3/gevent", "greenpg3/eventlet"),
            *("psycopg/gevent", "psycopg2/threads"),
            variant=JOIN,
        ),
    ),
    metrics=(Metric("cpu", "client CPU, us/query"), Metric("wall", "time, us/query")),
    targets=(
        Target(f"greenpg3/gevent {PAGE}", "cpu", 0.9, f"psycopg/gevent {PAGE}"),
        Target(f"greenpg3/gevent {JOIN}", "wall", 0.45, f"psycopg2/threads {JOIN}"),
    ),
    prepare=_prepare,
    units=TIMES,
    rounds=15,
    quick=5,
)
