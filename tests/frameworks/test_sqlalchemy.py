"""SQLAlchemy on greenpg: tests in green processes, and SQLAlchemy's suite for dialects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL

from tests.green import suite
from tests.green.__main__ import MODES, MONKEY

if TYPE_CHECKING:
    from pathlib import Path

SECONDS: Final = 1500.0  # for the whole suite three times, on a busy machine
COLUMNS: Final = {"blocking": "psycopg2", **dict.fromkeys(MONKEY, "greenpg")}
COLUMNS3: Final = {"blocking": "psycopg", "gevent": "greenpg3"}
FURTHER3: Final = {"blocking": "psycopg", "gevent": "psycopg", "eventlet": "greenpg3"}
SCHEMAS: Final = ("test_schema", "test_schema_2")
SUITE: Final = "tests.frameworks.sqlalchemy_compliance"


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
    dsn: str, tmp_path: Path, columns: dict[str, str]
) -> None:
    with databases(dsn, columns) as urls:
        children = {name: started(name, url, tmp_path) for name, url in urls.items()}
        printed = {name: ended(child) for name, child in children.items()}

    found = {name: json.loads((tmp_path / name).read_text()) for name in printed}
    blocking = found.pop("blocking")
    for name, outcomes in found.items():
        assert differences(blocking, outcomes) == {}, printed[name]
    assert Counter(blocking.values())["passed"] > 1500
    assert "failed" not in blocking.values(), printed["blocking"]


@contextmanager
def databases(dsn: str, columns: dict[str, str]) -> Iterator[dict[str, str]]:
    """Make a database for each column, with the schemas the suite requires; yield the URLs."""
    made = {name: f"sqlalchemy_{name}_{os.getpid()}" for name in columns}
    try:
        for database in made.values():
            run(dsn, f"create database {database}")
            for schema in SCHEMAS:
                run(f"{dsn} dbname={database}", f"create schema {schema}")
        yield {name: url(dsn, columns[name], database) for name, database in made.items()}
    finally:
        for database in made.values():
            run(dsn, f"drop database if exists {database} with (force)")


def url(dsn: str, driver: str, database: str) -> str:
    options: dict[str, Any] = {**parse_dsn(dsn), "dbname": database}
    made = URL.create(f"postgresql+{driver}", database=options.pop("dbname"), query=options)
    return made.render_as_string(hide_password=False)


def run(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute(statement)


def started(name: str, url: str, reports: Path) -> subprocess.Popen[str]:
    order = [sys.executable, "-m", SUITE, name, url, str(reports / name), "-q", "--tb=short"]
    return subprocess.Popen(
        order, cwd=suite.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(child: subprocess.Popen[str]) -> str:
    try:
        return child.communicate(timeout=SECONDS)[0]
    finally:
        child.kill()
        child.wait()


def differences(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    return {name: (one.get(name), other.get(name)) for name in sorted(names)}
