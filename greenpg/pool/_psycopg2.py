"""psycopg2 for pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg2 import Error, ProgrammingError
from psycopg2.extensions import make_dsn

from greenpg._connecting.connect import connect
from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._psycopg2.psycopg2_c import c_connection
from greenpg.errors import PoolClosed, PoolTimeout, ReadOnlySqlTransaction, TooManyRequests

from ._connections import PoolErrors
from .condition import condition, end

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from ._connections import Driver


class _Psycopg2:
    errors = PoolErrors(ProgrammingError, PoolTimeout, PoolClosed, TooManyRequests)
    error: type[Exception] = Error
    read_only: type[Exception] = ReadOnlySqlTransaction
    conninfo = CONNINFO
    condition = staticmethod(condition)
    end = staticmethod(end)

    def make_conninfo(self, conninfo: str, **params: Any) -> str:
        return make_dsn(conninfo, **params)

    def connect(self, conninfo: str, backend: Backend, options: dict[str, Any]) -> Any:
        conn = connect(conninfo, backend=backend, **options)
        while not issubclass(type(conn), c_connection):
            conn = conn.__wrapped__  # a tracer's proxy
        return conn

    def reset(self, conn: Any) -> None:
        conn.reset()


DRIVER: Final[Driver] = _Psycopg2()
