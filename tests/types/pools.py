"""Pools of either driver, the plug-ins' pools, and multiplexers."""

from __future__ import annotations

from typing import Any

import psycopg
from typing_extensions import assert_type

import greenpg
import greenpg_eventlet
import greenpg_gevent
from greenpg import psycopg3
from greenpg.pipeline import PipelineResult
from greenpg.pool import ConnectionPool, PoolSet


class MyConnection(greenpg.Connection):
    """A user's class."""


def pools_of_psycopg2(pool: ConnectionPool) -> None:
    with pool as same, same.connection(timeout=1.0) as conn:
        assert_type(same, ConnectionPool)
        assert_type(conn, greenpg.Connection)
    assert_type(pool.getconn(), greenpg.Connection)
    with ConnectionPool("", min_size=1, reset="discard") as made:
        assert_type(made, ConnectionPool[greenpg.Connection])
    pools_of_psycopg2(made)
    pools_of_psycopg2(greenpg.ConnectionPool("", driver="psycopg2"))


def pools_of_psycopg3() -> None:
    with ConnectionPool("", driver="psycopg", max_size=10) as pool, pool.connection() as conn:
        assert_type(pool, ConnectionPool[psycopg3.Connection])
        assert_type(conn.execute("select 1"), psycopg.Cursor[Any])
    assert_type(pool.getconn(), psycopg3.Connection)


def pools_of_a_users_class(driver: str) -> None:
    pool: ConnectionPool[MyConnection] = ConnectionPool(kwargs={"connection_factory": MyConnection})
    assert_type(pool.getconn(), MyConnection)
    other = ConnectionPool[MyConnection]("", kwargs={"connection_factory": MyConnection})
    assert_type(other.getconn(), MyConnection)
    assert_type(ConnectionPool("", driver=driver).getconn(), Any)


def pools_of_plugins(pool: greenpg_gevent.ConnectionPool) -> None:
    assert_type(pool.getconn(), greenpg.Connection)
    assert_type(greenpg_gevent.ConnectionPool("").getconn(), greenpg.Connection)
    assert_type(greenpg_eventlet.ConnectionPool("").getconn(), greenpg.Connection)
    three = greenpg_gevent.ConnectionPool("", driver="psycopg")
    assert_type(three.getconn(), psycopg3.Connection)
    assert_type(
        greenpg_eventlet.ConnectionPool("", driver="psycopg").getconn(), psycopg3.Connection
    )
    assert_type(greenpg_gevent.patch_psycopg(), None)
    assert_type(greenpg_eventlet.unpatch_psycopg3(), None)
    greenpg.use(greenpg_gevent.backend)
    greenpg.use(greenpg_eventlet.backend)


def sets() -> None:
    with PoolSet("host=a,b", max_size=4) as pools, pools.primary.connection() as conn:
        assert_type(pools, PoolSet[greenpg.Connection])
        assert_type(conn, greenpg.Connection)
    assert_type(PoolSet("", pool=greenpg_gevent.ConnectionPool).primary, ConnectionPool)
    three = PoolSet("", driver="psycopg", pool=greenpg_eventlet.ConnectionPool)
    assert_type(three.replica.getconn(), psycopg3.Connection)


def multiplexers() -> None:
    with greenpg_gevent.Multiplexer("", max_size=2) as multiplexer, multiplexer.deadline(1.0):
        assert_type(multiplexer, greenpg_gevent.Multiplexer)
        result = multiplexer.execute("select %s", (1,))
        assert_type(result, PipelineResult)
        assert_type(result.fetchall(), list[tuple[Any, ...]])
        assert_type(multiplexer.executemany("select %s", [(1,)]), list[PipelineResult])


def mistakes(pool: ConnectionPool) -> None:
    ConnectionPool("", most=3)  # type: ignore[call-overload]
    pools_of_psycopg2(ConnectionPool("", driver="psycopg"))  # type: ignore[arg-type]
    pool.getconn().execute("select 1")  # type: ignore[attr-defined]
