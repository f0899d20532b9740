"""psycopg 3 for listeners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from greenpg import psycopg3  # first: it says if psycopg is missing

# isort: split
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

if TYPE_CHECKING:
    from collections import deque

    from greenpg.backend import Backend

    from ._connection import Driver


class _Psycopg3:
    errors = psycopg3.ERRORS
    conninfo = psycopg3.CONNINFO
    make_conninfo = staticmethod(make_conninfo)

    def connect(self, dsn: str, backend: Backend, notes: deque[Any]) -> Any:
        options: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}
        conn = psycopg3.connect(dsn, backend=backend, **options)
        conn.add_notify_handler(notes.append)
        return conn

    def statement(self, conn: Any, verb: str, names: Iterable[str]) -> str:
        return "; ".join(f"{verb} {Identifier(name).as_string(conn)}" for name in names)

    def gather(self, conn: Any) -> None:
        with conn.lock:
            pgconn = conn.pgconn
            pgconn.consume_input()
            while (note := pgconn.notifies()) is not None:
                pgconn.notify_handler(note)


DRIVER: Final[Driver] = _Psycopg3()
