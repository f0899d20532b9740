"""psycopg2's error classes and greenpg's own, each also the fitting DB-API class."""

from psycopg2 import InterfaceError, NotSupportedError, OperationalError
from psycopg2 import errors as _errors
from psycopg2.errors import *  # noqa: F403  the classes are made by psycopg2's C code
from psycopg2.errors import QueryCanceled, lookup

__all__ = [
    *(name for name in dir(_errors) if not name.startswith("_")),
    "BackendError",
    "ConnectionFactoryWarning",
    "DeadlineExceeded",
    "FeatureUnavailable",
    "NotGreenWarning",
    "PipelineAborted",
    "PoolClosed",
    "PoolTimeout",
    "TooManyRequests",
    "lookup",
]


class BackendError(InterfaceError):
    """A backend is unknown, not installed or incomplete."""


class DeadlineExceeded(QueryCanceled):
    """An operation was stopped because its task's `deadline` had passed.

    The query was cancelled on the server and the connection can be used on:
    at once under autocommit, after a rollback inside a transaction.
    """


class PipelineAborted(OperationalError):
    """A statement of a pipeline was not run because one before it had failed."""


class PoolTimeout(OperationalError):
    """A pool had no connection to lend in time; the cause is why it could not connect, if so."""


class PoolClosed(OperationalError):
    """A connection was asked of a pool that is closed, or not open yet."""


class TooManyRequests(OperationalError):
    """As many tasks as `max_waiting` allows wait for a connection already."""


class FeatureUnavailable(NotSupportedError):
    """A feature needs functions of libpq that this psycopg2 build does not give access to."""


class NotGreenWarning(RuntimeWarning):
    """The process is monkey-patched, but its PostgreSQL connections are about to block it."""


class ConnectionFactoryWarning(RuntimeWarning):
    """A connection factory made a connection that is green for queries only."""
