"""Connecting psycopg 3: names by the backend, hosts in turn, timeouts, interrupts."""

from __future__ import annotations

import os

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from greenpg import psycopg3
from greenpg.backend import current
from greenpg_conformance.driver.connecting import HERE, NAME, NOWHERE, Resolver, listening
from greenpg_conformance.toolkit.heartbeat import heartbeat
from greenpg_conformance.toolkit.machine import Stopwatch
from greenpg_conformance.toolkit.proxy import Proxy
from tests.db.conftest import until

PRECISION = 0.2  # seconds


@pytest.fixture(scope="module")
def proxy(dsn):
    with Proxy(dsn) as made:
        yield made


@pytest.fixture
def target(proxy):
    """The server behind the proxy, at other hosts and ports."""

    def of(host=HERE, port=None, **options):
        params = {**conninfo_to_dict(proxy.dsn), "host": host, "port": port or proxy.port}
        params.pop("hostaddr", None)
        return make_conninfo(**{**params, **options})

    return of


def resolver(*addresses):
    return Resolver(current(), {NAME: list(addresses)})


@pytest.mark.parametrize("addresses", [[HERE], [NOWHERE, HERE]], ids=["one", "in vain first"])
def test_names_are_resolved_by_the_backend(connect, target, addresses):
    backend = resolver(*addresses)

    conn = connect(target(NAME), backend=backend)

    assert backend.asked == [NAME]
    assert conn.info.host == NAME
    assert conn.execute("select 7").fetchone() == (7,)


def test_unknown_name_is_an_operational_error(connect, target):
    with pytest.raises(psycopg.OperationalError, match="could not translate host name"):
        connect(target("nobody.greenpg.test"), backend=resolver())


def test_next_host_is_tried_at_its_timeout(connect, target, proxy):
    with listening() as silent, heartbeat(current()):
        dsn = target(f"{HERE},{NAME}", f"{silent},{proxy.port}", connect_timeout=2)

        conn = connect(dsn, backend=resolver(HERE))

    assert conn.info.port == proxy.port


def test_every_host_has_the_timeout(connect, target):
    with listening() as one, listening() as other:
        dsn, watch = target(f"{HERE},{HERE}", f"{one},{other}", connect_timeout=2), Stopwatch()

        with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
            connect(dsn)

    assert watch.lasted(4, PRECISION)
    assert "All failures were:" in str(caught.value)
    assert f"port: '{one}'" in str(caught.value)
    assert f"port: '{other}'" in str(caught.value)


def test_service_names_the_timeout(connect, tmp_path, monkeypatch):
    with listening() as silent:
        service = tmp_path / "services.conf"
        service.write_text(f"[silent]\nhost={HERE}\nport={silent}\nconnect_timeout=2\n")
        monkeypatch.setenv("PGSERVICEFILE", str(service))
        watch = Stopwatch()

        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect("service=silent")

    assert watch.lasted(2, PRECISION)


@pytest.mark.parametrize("wanted", ["any", "primary", "read-write", "prefer-standby"])
def test_primary_is_what_is_wanted(connect, target, wanted):
    conn = connect(target(f"{HERE},{HERE}", target_session_attrs=wanted))

    assert conn.execute("select 7").fetchone() == (7,)


def test_primary_is_not_what_is_wanted(connect, target):
    with pytest.raises(psycopg.OperationalError, match="standby"):
        connect(target(f"{HERE},{HERE}", target_session_attrs="standby"))


def test_parameter_that_libpq_refuses_is_its_error(connect, target):
    with pytest.raises(psycopg.Error, match="connect_timeout"):
        connect(target(NAME, connect_timeout="soon"), backend=resolver(HERE))


def test_timeout_may_be_a_fraction_as_in_psycopg(connect, target):
    conn = connect(target(NAME), backend=resolver(HERE), connect_timeout=5.5)

    assert conn.execute("select 7").fetchone() == (7,)


def test_others_run_while_a_connection_is_made(connect, target, proxy):
    proxy.delay(0.05, way="both")

    with heartbeat(current()):
        connect(target())

    proxy.flow()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, TimeoutError])
@pytest.mark.parametrize("wait", range(1, 4))
@pytest.mark.green
def test_interrupted_attempt_leaves_nothing(observer, target, wait, interrupt):
    dsn = target(application_name="greenpg3 left")
    before = open_files()

    with pytest.raises(interrupt):
        psycopg3.connect(dsn, backend=Interrupting(wait, interrupt))

    until(lambda: open_files() <= before, "its socket is closed")
    left = "select count(*) from pg_stat_activity where application_name = 'greenpg3 left'"
    until(lambda: observer.ask(left) == [(0,)], "its session is over")


def open_files():
    return len(os.listdir("/proc/self/fd"))


class Interrupting:
    """A backend one of whose waits is interrupted."""

    def __init__(self, wait, interrupt):
        self.left = wait
        self.interrupt = interrupt

    def __getattr__(self, name):
        return getattr(current(), name)

    def waiter(self):
        return Waiter(self, current().waiter())


class Waiter:
    def __init__(self, backend, waiter):
        self.backend = backend
        self.waiter = waiter

    def __getattr__(self, name):
        return getattr(self.waiter, name)

    def wait(self, fd, events, timeout):
        self.backend.left -= 1
        if not self.backend.left:
            raise self.backend.interrupt
        return self.waiter.wait(fd, events, timeout)
