"""Fixtures of the tests on a server, for each backend that runs them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import psycopg
import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.fake_server import FakeServer
from greenpg_conformance.toolkit.jobs import Job
from greenpg_conformance.toolkit.machine import Patience
from tests.db.telemetry import Meters, Spans
from tests.green.plugin import PATCHED

PATIENCE: Final = 5.0
_numbers = itertools.count(os.getpid() << 16)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "green: needs a hub or tasks that can be killed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that the backend of this process cannot run."""
    if "hub" not in current().capabilities:
        out = [item for item in items if item.get_closest_marker("green")]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def password_of(dsn: str) -> str:
    """Return the password of a DSN; any one if it names none."""
    params = parse_dsn(dsn)
    if "passfile" in params and "password" not in params:
        return Path(params["passfile"]).read_text().strip().rpartition(":")[2]
    return str(params.get("password", "secret"))


def until(true: Callable[[], Any], why: str) -> Any:
    """Return the first true value of `true()`; other tasks run meanwhile."""
    patience = Patience(PATIENCE)
    while not (value := true()):
        assert patience.left(), f"{why}: not in {PATIENCE:g} s"
        current().sleep(0.005)
    return value


class Gate:
    """A server-side barrier: the statement `sql` ends when the gate is opened."""

    def __init__(self, keeper: Any) -> None:
        self.key: Final = next(_numbers)
        self.function: Final = "pg_advisory_xact_lock_shared"
        self._cur = keeper.cursor()
        self._cur.execute("select pg_advisory_lock(%s)", (self.key,))
        self.sql: Final = f"select {self.function}({self.key})"

    def open(self) -> None:
        self._cur.execute("select pg_advisory_unlock(%s)", (self.key,))

    def wait_for(self, count: int = 1) -> None:
        """Wait until `count` statements stand before the gate."""
        until(lambda: self._standing() == count, f"{count} statements at the gate")

    def _standing(self) -> int:
        self._cur.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            " and classid::bigint << 32 | objid::bigint = %s",
            (self.key,),
        )
        return int(self._cur.fetchone()[0])


@pytest.fixture
def db(request: pytest.FixtureRequest) -> ModuleType:
    """The module that a program uses: psycopg2 once it is patched, else greenpg in its place."""
    return psycopg2 if request.config.stash.get(PATCHED, False) else greenpg


@pytest.fixture(params=[psycopg2, psycopg], ids=lambda module: module.__name__)
def driver(request: pytest.FixtureRequest) -> ModuleType:
    """The module whose connections a pool or a listener of the test has."""
    module: ModuleType = request.param
    return module


@pytest.fixture
def connect(db: ModuleType, dsn: str) -> Iterator[Callable[..., Any]]:
    """`db.connect` to the test server; its connections are closed after the test."""
    made: list[Any] = []

    def connected(given: str = dsn, **options: Any) -> Any:
        made.append(db.connect(given, **options))
        return made[-1]

    yield connected
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def auto(connect: Callable[..., Any]) -> Any:
    """A connection under autocommit."""
    made = connect()
    made.autocommit = True
    return made


@pytest.fixture(scope="session")
def _fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def fake(_fake: FakeServer) -> Iterator[FakeServer]:
    """A server that answers as the test says."""
    _fake.received()  # forget what other tests have sent
    yield _fake
    _fake.answer(b"", b"")


@pytest.fixture
def gate(connect: Callable[..., Any]) -> Gate:
    keeper = connect()
    keeper.autocommit = True
    return Gate(keeper)


@pytest.fixture
def meters() -> Iterator[Meters]:
    """OpenTelemetry's numbers."""
    made = Meters()
    yield made
    made.provider.shutdown()


@pytest.fixture
def spans() -> Iterator[Spans]:
    """OpenTelemetry's spans of what the test instruments."""
    made = Spans()
    from greenpg import otel  # only here: it requires an extra

    otel.instrument(tracer_provider=made.provider)
    yield made
    otel.uninstrument()
    made.provider.shutdown()


@pytest.fixture
def spawn() -> Iterator[Callable[..., Job]]:
    """Start jobs; none may outlive its test."""
    jobs: list[Job] = []

    def spawned(fn: Callable[..., Any], *args: Any) -> Job:
        jobs.append(Job(current(), fn, args))
        return jobs[-1]

    yield spawned
    for job in jobs:
        job.join(PATIENCE)


@pytest.fixture(scope="session")
def schema(dsn: str) -> Iterator[str]:
    """A schema of this process's own, dropped once every test has closed its connections."""
    name = f"greenpg_{next(_numbers)}"
    _run(dsn, f"create schema {name}")
    yield name
    _run(dsn, f"drop schema {name} cascade")


@pytest.fixture
def create(dsn: str, schema: str) -> Callable[..., str]:
    """Create a table (or "function") from the text after its name; returns the name."""

    def created(text: str, kind: str = "table") -> str:
        name = f"{schema}.made_{next(_numbers)}"
        _run(dsn, f"create {kind} {name} {text}")
        return name

    return created


def _run(dsn: str, statement: str) -> None:
    with closing(greenpg.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute(statement)
