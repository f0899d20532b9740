"""SQLAlchemy's connection records, managed for greenpg's pool."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from psycopg2.extensions import connection as c_connection
from sqlalchemy.pool.base import _ConnectionRecord

from greenpg import Error, OperationalError, ProgrammingError
from greenpg.errors import PoolClosed, PoolTimeout, TooManyRequests
from greenpg.pool import condition, condition3
from greenpg.pool.core import BROKEN, CLEAN, Condition, PoolErrors, session_of
from greenpg.sync import Deadline, is_green
from greenpg.threads import pristine

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool

CHECK_SECONDS: Final = 1.0
_select = pristine("select")


class Records:
    """Makes, checks and closes records; their borrowers connect them."""

    errors = PoolErrors(ProgrammingError, PoolTimeout, PoolClosed, TooManyRequests)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def connect(self) -> _ConnectionRecord:
        return _ConnectionRecord(self._pool, connect=False)

    def input_check(self, record: _ConnectionRecord) -> Callable[[int], bool]:
        lookup = weakref.ref(record)  # the pool must notice when a record is lost
        return lambda _: _has_input(lookup())

    def condition(self, record: _ConnectionRecord) -> Condition:
        """Return CLEAN also for an open transaction: SQLAlchemy may be told to leave it open."""
        conn = record.dbapi_connection
        return BROKEN if conn is None or _condition(conn) is BROKEN else CLEAN

    def session(self, record: _ConnectionRecord) -> tuple[str, int | None]:
        conn = record.dbapi_connection
        if conn is None:
            return "closed", None
        known = is_green(conn) or isinstance(conn, c_connection)
        return session_of(conn) if known else ("unknown", None)

    def commit(self, record: _ConnectionRecord) -> None:
        """Do nothing: SQLAlchemy ends transactions before it returns a record."""

    clean = cancel = commit

    def check(self, record: _ConnectionRecord) -> None:
        conn = record.dbapi_connection
        if conn is None:
            return
        try:
            with Deadline(conn, CHECK_SECONDS) if is_green(conn) else nullcontext():
                if not self._pool._dialect._do_ping_w_event(conn):
                    raise OperationalError("the connection is lost")
        except BaseException as error:
            record.invalidate(error)
            raise

    def close(self, record: _ConnectionRecord) -> None:
        record.close()


def _condition(conn: Any) -> Condition:
    if isinstance(conn, c_connection):
        return condition.condition(conn)
    return condition3.condition(conn) if is_green(conn) else CLEAN  # or another driver's


def driver_error(pool: Pool) -> type[Exception]:
    """Return the base class of the errors of a pool's driver; psycopg2's for a pool of its own."""
    dbapi = getattr(pool._dialect, "dbapi", None)
    return Error if dbapi is None else dbapi.Error


def _has_input(record: _ConnectionRecord | None) -> bool:
    """Return True if data has arrived since the last reply, or the connection was closed."""
    fileno = getattr(record.dbapi_connection if record else None, "fileno", None)
    if fileno is None:
        return False
    poll = _select.poll()
    try:
        poll.register(fileno(), _select.POLLIN)
    except Exception:  # closed, which each driver says by its own error: the check will find out
        return True
    return bool(poll.poll(0))
