"""psycopg 3's error classes as the core needs them."""

from __future__ import annotations

from typing import Final

from psycopg import Error, InterfaceError, OperationalError, ProgrammingError
from psycopg import errors as e
from psycopg.errors import InFailedSqlTransaction, QueryCanceled

from greenpg import errors
from greenpg._session.errors import ErrorClasses


class DeadlineExceeded(errors.DeadlineExceeded, QueryCanceled):  # type: ignore[misc]  # diag
    """greenpg.DeadlineExceeded on a psycopg 3 connection: psycopg's QueryCanceled too."""


class ConnectionClosed(OperationalError, InterfaceError):
    """psycopg's error for a closed connection, and greenpg's for a closed Listener.

    A connection that another task closes raises it, and psycopg's own is an OperationalError.
    """


if hasattr(e, "_WaitTimeout"):
    WaitTimeout = e._WaitTimeout
else:  # psycopg before 3.3.6, whose waits have no timeout

    class WaitTimeout(OperationalError):  # type: ignore[no-redef]
        """A wait's timeout has expired; callers handle it."""


ERRORS: Final = ErrorClasses(
    error=Error,
    interface=ConnectionClosed,
    operational=OperationalError,
    programming=ProgrammingError,
    deadline_exceeded=DeadlineExceeded,
    failed_transaction=InFailedSqlTransaction,
)
