"""Connection classes that the program calls itself, without `connect`."""

from __future__ import annotations

# the base classes are those of the module under test
# mypy: disable-error-code="misc,name-defined"
import warnings
from contextlib import closing

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

import greenpg
from greenpg.backend import choose, chosen, current
from greenpg.errors import ConnectionFactoryWarning
from greenpg.patch import patcher
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.db.conftest import password_of
from tests.green.plugin import PATCHED

C_CONNECTION = psycopg2._psycopg.connection


class Derived(C_CONNECTION):
    """Derived before any patch."""


@pytest.fixture
def store(db):
    """A class such as RelStorage's, derived from what the module has."""

    class Store(db.extensions.connection):
        __slots__ = ("replica",)

    return Store


@pytest.fixture(params=["ordinary", "replication"])
def either(request, db, store):
    """Such a class, or psycopg2's for replication."""
    return store if request.param == "ordinary" else db.extras.LogicalReplicationConnection


def test_connection_class_called_itself_is_green(store, dsn, spawn, gate):
    with closing(store(dsn)) as conn:
        job = spawn(conn.cursor().execute, gate.sql)
        gate.wait_for()
        second = spawn(conn.cursor().execute, "select 2")
        gate.open()
        job.result()
        second.result()

        assert isinstance(conn, greenpg.Connection)


@pytest.mark.green
def test_connection_class_called_itself_survives_an_interrupt(store, dsn, spawn, gate):
    with closing(store(dsn)) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        job = spawn(cur.execute, gate.sql)
        gate.wait_for()
        job.kill()
        job.join()
        cur.execute("select 5")

        assert cur.fetchone() == (5,)


def test_host_of_a_class_called_itself_is_resolved_by_the_backend(either, dsn, monkeypatch):
    asked = []

    def resolve(host, port):
        asked.append(host)
        return [(0, 0, 6, "", ("127.0.0.1", port))] * 2

    monkeypatch.setattr(current(), "resolve", resolve)
    params = {**parse_dsn(dsn), "host": "db.greenpg.test", "password": password_of(dsn)}

    with closing(either(make_dsn(**params))) as conn:
        assert asked == ["db.greenpg.test"]
        assert conn.info.host == "db.greenpg.test"
        assert parse_dsn(conn.dsn) == {**params, "password": "xxx"}


def test_class_called_itself_gives_up_at_the_connect_timeout(db, either, proxy):
    proxy.stall()
    dsn = make_dsn(proxy.dsn, connect_timeout=1)

    with heartbeat(current()), pytest.raises(db.OperationalError, match="timeout expired"):
        either(dsn)


def test_class_called_itself_refuses_a_dsn_as_psycopg2_does(db, store):
    with pytest.raises(db.Error) as plain:
        C_CONNECTION("no dsn at all")

    with pytest.raises(type(plain.value), match=str(plain.value)):
        store("no dsn at all")


@pytest.fixture
def patched(request):
    """A process in which psycopg2's names are green."""
    before = chosen()
    patch_psycopg, unpatch_psycopg = patcher(current())
    patch_psycopg()
    yield
    if not request.config.stash.get(PATCHED, False):
        unpatch_psycopg()
        choose(before)


def test_class_derived_before_the_patch_and_called_itself_warns(patched, dsn, spawn, gate):
    with pytest.warns(ConnectionFactoryWarning, match=r"\.Derived was derived") as caught:
        conn = Derived(dsn)
    with heartbeat(current()):
        job = spawn(conn.cursor().execute, gate.sql)
        gate.wait_for()
        gate.open()
        job.result()
    conn.close()

    assert [warning.filename for warning in caught] == [__file__]


def test_class_called_itself_does_not_connect_where_the_warning_is_an_error(patched, dsn):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConnectionFactoryWarning)
        with pytest.raises(ConnectionFactoryWarning):
            Derived(dsn)
        with closing(psycopg2.connect(dsn, connection_factory=Derived)) as conn:
            conn.cursor().execute("select 1")


def test_class_derived_after_the_patch_and_called_itself_does_not_warn(patched, dsn):
    class Store(psycopg2.extensions.connection):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConnectionFactoryWarning)
        with closing(Store(dsn)) as conn, closing(psycopg2.extras.DictConnection(dsn)) as other:
            conn.lobject().write("large")
            other.lobject().write("large")
