"""psycopg 3 for pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from greenpg import errors, psycopg3  # first: it says if psycopg is missing
from greenpg._green_classes import green_class

# isort: split
from psycopg import Error, OperationalError, ProgrammingError
from psycopg.conninfo import make_conninfo
from psycopg.errors import ReadOnlySqlTransaction

from ._connections import PoolErrors
from .condition3 import condition

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from ._connections import Driver


class PoolTimeout(errors.PoolTimeout, OperationalError):  # type: ignore[misc]  # diag
    """greenpg.errors.PoolTimeout, and psycopg's OperationalError."""


class PoolClosed(errors.PoolClosed, OperationalError):  # type: ignore[misc]  # diag
    """greenpg.errors.PoolClosed, and psycopg's OperationalError."""


class TooManyRequests(errors.TooManyRequests, OperationalError):  # type: ignore[misc]  # diag
    """greenpg.errors.TooManyRequests, and psycopg's OperationalError."""


class _Membership:
    """`Connection._pool` of a pool's connections: the end of `with conn` does not close them."""

    def __init__(self, autocommit: bool) -> None:
        self.autocommit = autocommit  # of a new connection


class _Psycopg3:
    errors = PoolErrors(ProgrammingError, PoolTimeout, PoolClosed, TooManyRequests)
    error: type[Exception] = Error
    read_only: type[Exception] = ReadOnlySqlTransaction
    conninfo = psycopg3.CONNINFO
    make_conninfo = staticmethod(make_conninfo)
    condition = staticmethod(condition)

    def connect(self, conninfo: str, backend: Backend, options: dict[str, Any]) -> Any:
        cls = green_class(options.pop("connection_class", psycopg3.Connection))
        conn = cls.connect(conninfo, backend=backend, **options)
        conn._pool = _Membership(conn.autocommit)
        return conn

    def reset(self, conn: Any) -> None:
        conn.rollback()
        conn.autocommit = True
        conn.execute("DISCARD ALL", prepare=False)  # psycopg then forgets what it has prepared
        conn.autocommit = conn._pool.autocommit
        conn.isolation_level = conn.read_only = conn.deferrable = None

    def end(self, conn: Any) -> None:
        conn.close()


DRIVER: Final[Driver] = _Psycopg3()
