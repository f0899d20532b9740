"""Fixtures of all tests: a server, a proxy, and the check for what a test leaves behind."""

import faulthandler
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from psycopg2.extensions import make_dsn

from greenpg.backend import current
from greenpg.embedded import server_dsn
from greenpg_conformance.toolkit.leaks import Sessions, descriptors, no_leaks, tasks, threads
from greenpg_conformance.toolkit.machine import clock_watch
from greenpg_conformance.toolkit.proxy import Proxy

from .chromium import Browser

APPLICATION = f"greenpg-tests-{os.getpid()}"
GRACE = 10.0

with suppress(ImportError):  # where other releases of a framework are tested, none is needed
    from hypothesis import HealthCheck, settings

    # How quickly examples are made says more of the machine than of the tests.
    quiet = [HealthCheck.too_slow]
    settings.register_profile("greenpg", deadline=None, suppress_health_check=quiet)
    settings.load_profile("greenpg")


def pytest_configure() -> None:
    """Hear Ctrl-C: a shell's background job ignores it, and so would the children of tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what is there now out of the leak checks' walks over all objects."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test with a limit of its own live longer than `faulthandler_timeout`."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        limit = marker.args[0] if marker.args else marker.kwargs["timeout"]
        file = item.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(limit + GRACE, exit=True, file=file)


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The server of GREENPG_DSN, else an embedded one; its sessions bear our name."""
    with server_dsn() as server:
        yield make_dsn(server, application_name=APPLICATION)


@pytest.fixture(scope="session")
def sessions(dsn: str) -> Iterator[Sessions]:
    """Server sessions of this run's connections."""
    probe = Sessions(dsn, APPLICATION)
    yield probe
    probe.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def machine_watched() -> None:
    """Start the process that tells a stall from a machine that stood still."""
    clock_watch()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves a descriptor, a thread, a task or a server session behind."""
    probes = [descriptors, threads, tasks]
    if "dsn" in request.fixturenames:
        probes.append(request.getfixturevalue("sessions"))
    with no_leaks(*probes, sleep=current().sleep):
        yield


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A proxy of this test's own in front of the test server."""
    with Proxy(dsn) as made:
        yield made
