"""psycopg2 for listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg2.extensions import make_dsn

from greenpg._connecting.connect import connect_untraced
from greenpg._notifications import statement
from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._psycopg2.state import ERRORS

if TYPE_CHECKING:
    from collections import deque

    from greenpg.backend import Backend

    from ._connection import Driver


class _Psycopg2:
    errors = ERRORS
    conninfo = CONNINFO
    statement = staticmethod(statement)

    def make_conninfo(self, conninfo: str, **params: Any) -> str:
        return make_dsn(conninfo, **params)

    def connect(self, dsn: str, backend: Backend, notes: deque[Any]) -> Any:
        conn = connect_untraced(dsn, backend=backend)
        conn.autocommit = True
        conn.notifies = notes
        return conn

    def gather(self, conn: Any) -> None:
        conn.poll()


DRIVER: Final[Driver] = _Psycopg2()
