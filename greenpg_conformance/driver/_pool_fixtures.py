"""A pool on the tested backend, and what tests do with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import make_dsn

from greenpg.pool import ConnectionPool
from greenpg_conformance.harness.context import Context
from greenpg_conformance.storm.pool_storm import SESSIONS

from ._steps import ask


@contextmanager
def pool_of(ctx: Context, dsn: str | None = None, **options: Any) -> Iterator[Any]:
    """A pool on the tested backend, whose sessions `count` counts."""
    made = ConnectionPool(
        make_dsn(dsn or ctx.dsn, application_name=f"{ctx.name}_pool"),
        driver=ctx.driver.name,
        backend=ctx.backend,
        **{"min_size": 1, "timeout": 5.0, **options},
    )
    try:
        yield made
    finally:
        made.close(0.5)


def count(ctx: Context) -> Any:
    """Return how many sessions the pools of this process have on the server."""
    return ctx.server.ask(SESSIONS, f"{ctx.name}_pool")[0][0]


def terminate_all(ctx: Context) -> None:
    """End the sessions of this process's pools and wait until they are gone."""
    ctx.server.ask(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = %s",
        f"{ctx.name}_pool",
    )


def borrow_and_ask(pool: Any) -> None:
    with pool.connection() as conn:
        assert ask(conn) == 7
