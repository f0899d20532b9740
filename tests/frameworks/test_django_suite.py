"""Part of Django's own test suite under greenpg.django, compared with Django's own backend."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import pytest

from greenpg.embedded import EmbeddedServer
from tests.upstream.server import ServerError, newest_binaries

from .environments import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CORE: Final = ("backends", "transactions", "transaction_hooks")
LABELS: Final = (*CORE, "postgres_tests")
SECONDS: Final = 240
RUNNER: Final = ROOT / "tests" / "frameworks" / "django_suite.py"
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
    home = request.config.cache.mkdir("django-source")
    release = version("django")
    whole = home / f"django-{release}"
    if not whole.is_dir():
        order = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        order += ["--no-binary", "django", "--dest", str(home), f"django=={release}"]
        subprocess.run(order, check=True, timeout=SECONDS)
        with tarfile.open(home / f"django-{release}.tar.gz") as archive:
            archive.extractall(home / "aside", filter="data")
        os.replace(home / "aside" / whole.name, whole)  # a run may be interrupted while it extracts
    return whole / "tests"


@pytest.fixture(scope="module")
def complete_server() -> Iterator[str]:
    """A server with contrib modules, which postgres_tests requires."""
    try:
        binaries = newest_binaries()
    except ServerError as error:
        pytest.skip(str(error))
    server = EmbeddedServer(binaries=binaries)
    yield server.dsn
    server.stop()


def run(
    source: Path,
    dsn: str,
    driver: str,
    library: str,
    engine: str,
    labels: Sequence[str] = LABELS,
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
def stock(source: Path, complete_server: str) -> Run:
    """The results of Django's own backend, blocking."""
    return run(source, complete_server, "psycopg2", "none", STOCK)


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(
    ("library", "options", "otherwise"),
    [("gevent", POOL, OTHERWISE | WITH_POOL), ("eventlet", {}, OTHERWISE)],
)
def test_djangos_own_tests_end_alike(source, complete_server, stock, library, options, otherwise):
    green = run(source, complete_server, "psycopg2", library, "greenpg.django", **options)

    assert stock.tests > 500
    assert (green.tests, green.failed) == (stock.tests, stock.failed | otherwise)


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(
    ("labels", "library", "options", "otherwise"),
    [
        (CORE, "eventlet", {}, OTHERWISE3),
        pytest.param(LABELS, "eventlet", {}, OTHERWISE3, marks=pytest.mark.further),
        pytest.param(LABELS, "gevent", POOL, OTHERWISE3 | WITH_POOL, marks=pytest.mark.further),
    ],
)
def test_djangos_own_tests_end_alike_over_psycopg3(
    source, complete_server, labels, library, options, otherwise
):
    stock = run(source, complete_server, "psycopg", "none", STOCK, labels)

    green = run(source, complete_server, "psycopg", library, "greenpg.django", labels, **options)

    assert stock.tests > 300
    assert (green.tests, green.failed) == (stock.tests, stock.failed | otherwise)
