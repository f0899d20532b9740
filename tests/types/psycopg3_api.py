"""psycopg 3: its own types, of the green classes."""

from __future__ import annotations

from typing import Any

import psycopg
from typing_extensions import assert_type

from greenpg import psycopg3


def connections() -> None:
    conn = psycopg3.connect("", autocommit=True, backend="threads")
    assert_type(conn, psycopg3.Connection)
    assert_type(conn.cursor(), psycopg.Cursor[Any])
    assert_type(conn.cursor("named"), psycopg.ServerCursor[Any])
    assert_type(conn.execute("select 1"), psycopg.Cursor[Any])
    assert_type(conn.info.backend_pid, int)
    with conn.transaction() as block, conn.pipeline() as pipeline:
        assert_type(block, psycopg.Transaction)
        assert_type(pipeline, psycopg.Pipeline)
    with conn as same, same.cursor().copy("copy t to stdout") as copy:
        assert_type(same, psycopg3.Connection)
        assert_type(copy, psycopg.Copy)
