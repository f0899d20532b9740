"""`psycopg3.patch()`: psycopg's own names give green connections."""

from __future__ import annotations

import psycopg
import pytest

from greenpg import psycopg3


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


def test_unpatch_gives_psycopgs_own(dsn, patched):
    psycopg3.unpatch()

    with psycopg.connect(dsn) as conn, Own.connect(dsn) as own:
        assert type(conn) is psycopg.Connection
        assert type(own) is Own
    assert psycopg.connect == earlier
