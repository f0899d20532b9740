from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import Connection, Engine, create_engine, text

from greenpg.backend import current
from tests.db.conftest import (  # noqa: F401  fixtures and hooks
    connect,
    create,
    db,
    gate,
    pytest_collection_modifyitems,
    pytest_configure,
    schema,
    spawn,
)
from tests.green.plugin import PATCHED


@pytest.fixture(params=["greenpg", "psycopg2"])
def driver(request: pytest.FixtureRequest) -> Any:
    """The dialect's driver; stock psycopg2 is green only in a monkey-patched process."""
    green = "hub" in current().capabilities
    if request.param == "psycopg2" and green and not request.config.stash.get(PATCHED, False):
        pytest.skip("psycopg2 and QueuePool are green in a monkey-patched process only")
    return request.param


@pytest.fixture
def make(dsn: str) -> Iterator[Callable[..., Engine]]:
    """A function that makes engines on the test server; they are disposed after the test."""
    made: list[Engine] = []

    def engine(driver: str = "greenpg", **options: Any) -> Engine:
        arguments = {**parse_dsn(dsn), **options.pop("connect_args", {})}
        made.append(create_engine(f"postgresql+{driver}://", connect_args=arguments, **options))
        return made[-1]

    yield engine
    for one in made:
        one.dispose()


@pytest.fixture
def engine(make: Callable[..., Engine]) -> Engine:
    return make(pool_size=2, max_overflow=0, pool_timeout=5)


def ask(conn: Connection, query: str = "select 1") -> Any:
    return conn.execute(text(query)).scalar()


def pid(conn: Connection) -> int:
    return int(ask(conn, "select pg_backend_pid()"))
