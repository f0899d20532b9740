from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any, Final

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import Connection, Engine, create_engine, text

from greenpg import psycopg3
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

GREEN: Final[list[Any]] = ["greenpg", "greenpg3"]
# SQLAlchemy closes no cursor of a connection that it closes, and psycopg's warn of that.
IGNORED: Final = "ignore:.*Cursor.*was deleted while still open:ResourceWarning"
PSYCOPG: Final = pytest.param("psycopg", marks=pytest.mark.filterwarnings(IGNORED))
STOCK: Final[list[Any]] = ["psycopg2", PSYCOPG]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both of greenpg's dialects; on SQLAlchemy's too if it names `driver`."""
    if "driver" in metafunc.fixturenames:
        named = "driver" in signature(metafunc.function).parameters
        metafunc.parametrize("driver", GREEN + STOCK if named else GREEN, indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    """The dialect's driver; SQLAlchemy's own are green only in a monkey-patched process."""
    green = "hub" in current().capabilities
    if request.param not in GREEN and green and not request.config.stash.get(PATCHED, False):
        pytest.skip("SQLAlchemy's own dialects are green in a monkey-patched process only")
    if request.param == "psycopg" and green:
        psycopg3.patch()
    yield request.param
    psycopg3.unpatch()
    if request.param == "psycopg":
        gc.collect()  # while this parameter's filter of warnings is in force


@pytest.fixture
def make(dsn: str, driver: str) -> Iterator[Callable[..., Engine]]:
    """A function that makes engines on the test server; they are disposed after the test."""
    made: list[Engine] = []

    def engine(driver: str = driver, **options: Any) -> Engine:
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
