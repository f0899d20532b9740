"""SQLAlchemy on greenpg: tests in green processes, and SQLAlchemy's own suites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from sqlalchemy import URL

from tests.db.conftest import password_of
from tests.green import suite
from tests.green.__main__ import MODES, MONKEY

from .sources import source

SECONDS: Final = 3000.0  # for a whole suite five times, on a busy machine
# libraries and drivers
COLUMNS: Final = ("blocking_psycopg2", *(f"{name}_greenpg" for name in MONKEY))
COLUMNS3: Final = ("blocking_psycopg", "gevent_greenpg3")
FURTHER3: Final = ("blocking_psycopg", "gevent_psycopg", "eventlet_psycopg", "eventlet_greenpg3")
RUNNER: Final = "tests.frameworks.sqlalchemy_compliance"
SUITE: Final = Path(__file__).parent / "sqlalchemy_compliance"
SCHEMAS: Final = ("create schema test_schema", "create schema test_schema_2")
# as SQLAlchemy's README.unittests.rst says; the server has no locales
COMPLETE: Final = (
    *SCHEMAS,
    "create extension citext",
    "create extension hstore",
    'create collation "en_US" from "C"',
)
REPOSITORY: Final = ("test/dialect/postgresql", "test/engine/test_pool.py", "--notimingintensive")
WITHOUT_TYPES: Final = "--ignore=test/dialect/postgresql/test_types.py"  # nine tenths of the tests


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MONKEY)
def test_sqlalchemy_works_in_green_threads(dsn: str, name: str, mode: str) -> None:
    suite.run(name, mode, "tests/frameworks/sqlalchemy", dsn=dsn, seconds=SECONDS)


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(
    "columns", [COLUMNS, COLUMNS3, pytest.param(FURTHER3, marks=pytest.mark.further)]
)
def test_sqlalchemys_own_suite_ends_as_over_the_blocking_driver(
    dsn: str, tmp_path: Path, columns: tuple[str, ...]
) -> None:
    with databases(dsn, columns, SCHEMAS) as urls:
        passed = compared(urls, SUITE, ("suite.py",), tmp_path)

    assert passed > 1500


@pytest.fixture(scope="module")
def scott(complete_server: str) -> str:
    """A DSN with a password that is no part of the patterns in SQLAlchemy's tests."""
    run(complete_server, "create role scott superuser login password 'tiger'")
    return make_dsn(complete_server, user="scott", password="tiger")


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(
    ("columns", "files", "least"),
    [
        (("blocking_psycopg", "eventlet_greenpg3"), (*REPOSITORY, WITHOUT_TYPES), 900),
        pytest.param((*FURTHER3, "gevent_greenpg3"), REPOSITORY, 10_000, marks=pytest.mark.further),
    ],
)
def test_sqlalchemys_tests_of_postgresql_and_pools_end_as_over_the_blocking_driver(
    request: pytest.FixtureRequest,
    scott: str,
    tmp_path: Path,
    columns: tuple[str, ...],
    files: tuple[str, ...],
    least: int,
) -> None:
    home = source(request.config.cache.mkdir("sqlalchemy-source"), "sqlalchemy")

    with databases(scott, columns, COMPLETE) as urls:
        passed = compared(urls, home, files, tmp_path)

    assert passed > least


def compared(urls: dict[str, str], home: Path, files: tuple[str, ...], reports: Path) -> int:
    """Run the files for each URL at once; return how many tests pass for all of them."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(started(name, url, home, files, reports))
            for name, url in urls.items()
        ]
        for child in children:
            child.wait(SECONDS)

    [first, blocking], *others = [(name, outcomes(reports, name)) for name in urls]
    for name, found in others:
        assert differences(blocking, found) == {}, printed(reports, name)
    assert "failed" not in blocking.values(), printed(reports, first)
    return Counter(blocking.values())["passed"]


@contextmanager
def databases(
    dsn: str, columns: tuple[str, ...], statements: tuple[str, ...]
) -> Iterator[dict[str, str]]:
    """Make a database for each column, with what the tests require; yield the URLs."""
    made = {name: f"sqlalchemy_{name}_{os.getpid()}" for name in columns}
    try:
        for database in made.values():
            run(dsn, f"create database {database}")
            for statement in statements:
                run(f"{dsn} dbname={database}", statement)
        yield {name: url(dsn, name.partition("_")[2], database) for name, database in made.items()}
    finally:
        for database in made.values():
            run(dsn, f"drop database if exists {database} with (force)")


def url(dsn: str, driver: str, database: str) -> str:
    """Return the URL with the server's address in its usual place, where some tests look for it."""
    options: dict[str, Any] = parse_dsn(dsn) | {"password": password_of(dsn)}
    del options["dbname"]
    place = {"username": options.pop("user", None), "password": options.pop("password")}
    if not options.get("host", "/").startswith("/"):
        place |= {"host": options.pop("host"), "port": int(options.pop("port", 5432))}
    made = URL.create(f"postgresql+{driver}", database=database, query=options, **place)
    return made.render_as_string(hide_password=False)


def run(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute(statement)


@contextmanager
def started(
    name: str, url: str, home: Path, files: tuple[str, ...], reports: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the files in a process that ends with the block."""
    library = name.partition("_")[0]
    with (reports / f"{name}.txt").open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", RUNNER, library, url, str(reports / f"{name}.json"), *files],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(suite.ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def outcomes(reports: Path, name: str) -> dict[str, str]:
    report = reports / f"{name}.json"
    assert report.exists(), printed(reports, name)
    found: dict[str, str] = json.loads(report.read_text())
    return found


def printed(reports: Path, name: str) -> str:
    return (reports / f"{name}.txt").read_text()


def differences(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    return {name: (one.get(name), other.get(name)) for name in sorted(names)}
