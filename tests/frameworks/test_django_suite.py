"""Part of Django's own test suite under greenpg.django, compared with Django's own backend."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.environments import ROOT

from . import sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CORE: Final = ("backends", "transactions", "transaction_hooks")
LABELS: Final = (*CORE, "postgres_tests")
SECONDS: Final = 600  # for each run, on a busy machine
RUNNER: Final = ROOT / "tests" / "frameworks" / "django_suite.py"
FURTHER: Final = pytest.mark.further
GREEN: Final = "greenpg.django"
STOCK: Final = "django.db.backends.postgresql"
# The first expects that Django's pool requires psycopg 3, the second CONN_MAX_AGE beside a pool.
OTHERWISE: Final = {"test_connect_pool_setting_ignored_for_psycopg2"}
WITH_POOL: Final = {"test_health_checks_enabled_errors_occurred"}
# These expect psycopg_pool's PoolTimeout, and a private attribute of its pool.
OTHERWISE3: Final = {"test_connect_pool", "test_pooling_health_checks"}
POOL: Final = {"pool": {"min_size": 1, "max_size": 10}}


@dataclass(frozen=True)
class Run:
    """How many tests ran, and which of them failed."""

    tests: int
    failed: frozenset[str]


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest) -> Path:
    """The directory of the installed Django version's own tests."""
    return sources.source(request.config.cache.mkdir("django-source"), "django") / "tests"


def run(
    source: Path,
    dsn: str,
    driver: str,
    library: str,
    engine: str,
    labels: tuple[str, ...] = LABELS,
    **options: object,
) -> Run:
    """Run the labels in a process of their own; fail if no tests ran."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(RUNNER), library, engine, str(source), *labels],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GREENPG_DSN": dsn,
            "DJANGO_DRIVER": driver,
            "DJANGO_OPTIONS": json.dumps(options),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    ran = re.search(r"^Ran (\d+) tests", done.stdout, re.M)
    assert ran, done.stdout
    failed = re.findall(r"^(?:ERROR|FAIL): (\w+)", done.stdout, re.M)
    return Run(int(ran[1]), frozenset(failed))


@pytest.fixture(scope="module")
def stock(source: Path, complete_server: str) -> Callable[..., Run]:
    """The results of Django's own backend, blocking, with a driver; each is made once."""
    return cache(partial(run, source, complete_server, library="none", engine=STOCK))


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(
    ("library", "options", "otherwise"),
    [("gevent", POOL, OTHERWISE | WITH_POOL), ("eventlet", {}, OTHERWISE)],
)
def test_djangos_own_tests_end_alike(source, complete_server, stock, library, options, otherwise):
    blocking = stock("psycopg2")

    green = run(source, complete_server, "psycopg2", library, GREEN, **options)

    assert blocking.tests > 500
    assert (green.tests, green.failed) == (blocking.tests, blocking.failed | otherwise)


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(
    ("labels", "library", "engine", "options", "otherwise"),
    [
        (CORE, "eventlet", GREEN, {}, OTHERWISE3),
        (CORE, "gevent", STOCK, {}, frozenset()),
        pytest.param(LABELS, "eventlet", GREEN, {}, OTHERWISE3, marks=FURTHER),
        pytest.param(LABELS, "gevent", GREEN, POOL, OTHERWISE3 | WITH_POOL, marks=FURTHER),
        pytest.param(LABELS, "eventlet", STOCK, {}, frozenset(), marks=FURTHER),
        pytest.param(LABELS, "gevent", STOCK, {}, frozenset(), marks=FURTHER),
    ],
)
def test_djangos_own_tests_end_alike_over_psycopg3(
    source, complete_server, stock, labels, library, engine, options, otherwise
):
    blocking = stock("psycopg", labels=labels)

    green = run(source, complete_server, "psycopg", library, engine, labels, **options)

    assert blocking.tests > 300
    assert (green.tests, green.failed) == (blocking.tests, blocking.failed | otherwise)
