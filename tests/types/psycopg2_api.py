"""Connections, cursors and what they give, with psycopg2."""

from __future__ import annotations

from typing import Any

import psycopg
import psycopg2.extras
from psycopg2 import extensions
from typing_extensions import assert_type

import greenpg
from greenpg.copy import Copy
from greenpg.cursor import NamedCursor
from greenpg.lobject import Lobject
from greenpg.notify import Missed
from greenpg.pipeline import Pipeline, PipelineResult
from greenpg.sync import ConnectionLock, Deadline


class MyConnection(greenpg.Connection):
    """A user's class."""


class MyLobject(Lobject):
    """A user's class."""


def make(dsn: str) -> MyConnection:
    """A factory that is a function."""
    return MyConnection(dsn)


def connects(factory: type[MyConnection] | None) -> None:
    assert_type(greenpg.connect("dbname=app", backend="gevent"), greenpg.Connection)
    assert_type(greenpg.connect(host="db", dbname="app"), greenpg.Connection)
    dicts = psycopg2.extras.DictCursor
    assert_type(greenpg.connect("", cursor_factory=dicts), greenpg.Connection)
    assert_type(greenpg.connect("", connection_factory=MyConnection), MyConnection)
    assert_type(greenpg.connect("", MyConnection, dicts), MyConnection)
    assert_type(greenpg.connect("", connection_factory=make, port=5432), MyConnection)
    assert_type(greenpg.connect("", factory), MyConnection | greenpg.Connection)


def facts(conn: greenpg.Connection) -> None:
    assert_type(conn.info.backend_pid, int)
    assert_type(conn.info, extensions.ConnectionInfo)
    assert_type(conn.get_dsn_parameters(), dict[str, str])
    assert_type(conn.tpc_recover(), list[extensions.Xid])
    assert_type(conn.dsn, str)


def cursors(conn: greenpg.Connection, name: str | None) -> None:
    assert_type(conn.cursor(), greenpg.Cursor)
    assert_type(conn.cursor("rows", withhold=True), NamedCursor)
    assert_type(conn.cursor(name), greenpg.Cursor)
    dicts = psycopg2.extras.DictCursor
    assert_type(conn.cursor(cursor_factory=dicts), psycopg2.extras.DictCursor)
    assert_type(conn.cursor("rows", dicts), psycopg2.extras.DictCursor)
    with conn as same, same.cursor() as cur:
        assert_type(same, greenpg.Connection)
        assert_type(cur, greenpg.Cursor)
        assert_type(cur.fetchone(), tuple[Any, ...] | None)
        assert_type(cur.fetchmany(2), list[tuple[Any, ...]])
        assert_type(cur.fetchall(), list[tuple[Any, ...]])
        assert_type(cur.rowcount, int)
        for row in cur.stream("select 1"):
            assert_type(row, tuple[Any, ...])
    with conn.cursor("rows") as named:
        assert_type(named, NamedCursor)
        for row in named:
            assert_type(row, tuple[Any, ...])


def copies(cur: greenpg.Cursor) -> None:
    with cur.copy("copy t to stdout") as copy:
        assert_type(copy, Copy)
        assert_type(copy.read(), bytes)
        for row in copy.rows():
            assert_type(row, tuple[Any, ...])


def large_objects(conn: greenpg.Connection) -> None:
    assert_type(conn.lobject(), Lobject)
    assert_type(conn.lobject(7, "rb", lobject_factory=MyLobject), MyLobject)
    with conn.lobject(7) as large:
        assert_type(large, Lobject)


def blocks(conn: greenpg.Connection) -> None:
    with conn.pipeline() as pipeline:
        assert_type(pipeline, Pipeline)
        result = pipeline.execute("select 1")
    assert_type(result, PipelineResult)
    assert_type(result.fetchone(), tuple[Any, ...] | None)
    with conn.exclusive() as lock, conn.deadline(1.0) as deadline:
        assert_type(lock, ConnectionLock)
        assert_type(deadline, Deadline)
    for note in conn.listen("orders", timeout=1.0):
        assert_type(note, extensions.Notify)


def listens() -> None:
    with greenpg.Listener("") as listener, listener.subscribe("orders") as subscription:
        assert_type(listener, greenpg.Listener)
        for item in subscription:
            assert_type(item, extensions.Notify | psycopg.Notify | Missed)


def mistakes(conn: greenpg.Connection) -> None:
    conn.deadlin(1.0)  # type: ignore[attr-defined]
    conn.cursor(7)  # type: ignore[call-overload]
    conn.deadline("1")  # type: ignore[arg-type]
    conn.lobject("7")  # type: ignore[call-overload]
