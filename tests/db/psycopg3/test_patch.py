"""`psycopg3.patch()`: psycopg's own names give green connections."""

from __future__ import annotations

import psycopg
import pytest

from greenpg import psycopg3
from greenpg.backend import current
from greenpg_conformance.driver.connecting import HERE, listening
from greenpg_conformance.toolkit.heartbeat import heartbeat


@pytest.fixture
def patched():
    psycopg3.patch()
    psycopg3.patch()
    yield
    psycopg3.unpatch()


class Own(psycopg.Connection):
    """A user's class."""

    mark = "own"


earlier = psycopg.connect  # as `from psycopg import connect` before the patch


@pytest.mark.parametrize(
    "connect",
    [
        lambda dsn: psycopg.connect(dsn),
        lambda dsn: psycopg.Connection.connect(dsn),
        lambda dsn: Own.connect(dsn),
        lambda dsn: earlier(dsn),
    ],
)
def test_connections_are_green(dsn, patched, connect):
    with connect(dsn) as conn:
        assert isinstance(conn, psycopg3.Connection)
        assert conn.execute("select 7").fetchone() == (7,)


def test_users_class_stays_under_its_connections(dsn, patched):
    with Own.connect(dsn) as conn:
        assert isinstance(conn, Own)
        assert type(conn).__name__ == "Own"


class Tenant(psycopg.Connection):
    """A user's class with a `connect` of its own."""

    asked: list[str] = []  # noqa: RUF012  one for all

    @classmethod
    def connect(cls, conninfo="", *, tenant, **options):  # type: ignore[override]
        cls.asked.append(tenant)
        return super().connect(conninfo, **options)


def test_users_connect_is_called_once(dsn, patched):
    with Tenant.connect(dsn, tenant="ann") as conn:
        assert isinstance(conn, psycopg3.Connection)

    assert Tenant.asked == ["ann"]


def test_others_run_while_an_earlier_connect_waits(patched):
    timeout = pytest.raises(psycopg.errors.ConnectionTimeout)

    with listening() as silent, heartbeat(current()), timeout:
        earlier(f"host={HERE} port={silent}", connect_timeout=2)


def test_unpatch_gives_psycopgs_own(dsn, patched):
    psycopg3.unpatch()

    with psycopg.connect(dsn) as conn, Own.connect(dsn) as own:
        assert type(conn) is psycopg.Connection
        assert type(own) is Own
    assert psycopg.connect == earlier
