"""psycopg2's error classes and greenpg's own; each derives from the matching DB-API class."""

from psycopg2 import InterfaceError, NotSupportedError, OperationalError
from psycopg2 import errors as _errors
from psycopg2.errors import *  # noqa: F403  psycopg2's C code makes the classes
from psycopg2.errors import QueryCanceled, lookup

from greenpg._sqlstate import sqlstate_of

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
    "sqlstate_of",
]


class BackendError(InterfaceError):
    """A backend is unknown, not installed or incomplete."""


class DeadlineExceeded(QueryCanceled):
    """An operation was stopped because its task's `deadline` had passed.

    The query has been cancelled on the server and the connection remains usable:
    at once under autocommit, after a rollback inside a transaction.
    """


class PipelineAborted(OperationalError):
    """A pipeline's statement did not run because an earlier one had failed."""


class PoolTimeout(OperationalError):
    """A pool had no free connection in time; `__cause__` is its last connect error, if any."""


class PoolClosed(OperationalError):
    """A connection was requested from a pool that is closed or not open yet."""


class TooManyRequests(OperationalError):
    """As many tasks as `max_waiting` allows are already waiting for a connection."""


class FeatureUnavailable(NotSupportedError):
    """A feature requires libpq functions that cannot be reached through this psycopg2 build."""


class NotGreenWarning(RuntimeWarning):
    """The process is monkey-patched, but its PostgreSQL connections will block it."""


class ConnectionFactoryWarning(RuntimeWarning):
    """A factory or a class called itself made a connection that is green for queries only."""
