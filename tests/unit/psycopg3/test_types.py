"""What type checkers see of `greenpg.psycopg3`: psycopg's types, here by mypy in `make lint`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from greenpg import psycopg3

if TYPE_CHECKING:
    from typing_extensions import assert_type

    def check_types() -> None:
        """Is not called: its types are checked."""
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


def test_green_classes_are_psycopgs() -> None:
    assert issubclass(psycopg3.Connection, psycopg.Connection)
    assert issubclass(psycopg3.Cursor, psycopg.Cursor)
