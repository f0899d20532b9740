"""PostgreSQL for green threads: psycopg2 and psycopg 3 with waits by a green-thread library."""

from ._protocol import import_psycopg2 as _early  # noqa: F401  before all else that imports psycopg2

# isort: split
import psycopg2
from psycopg2 import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,
    __libpq_version__,
    apilevel,
    paramstyle,
)

from . import errorcodes, errors, extensions, extras, sql, tz
from ._connecting.connect import connect, use
from ._psycopg2.wait_callback import wait
from .backend import Backend, current
from .connection import Connection
from .cursor import Cursor
from .errors import DeadlineExceeded
from .extensions import get_wait_callback, set_wait_callback
from .multiplexer import Multiplexer
from .notify import Listener, Missed
from .pool import ConnectionPool
from .stalls import watch
from .sync import ConnectionLock

__all__ = [
    "BINARY", "DATETIME", "NUMBER", "ROWID", "STRING", "Backend", "Binary", "Connection",
    "ConnectionLock", "ConnectionPool", "Cursor", "DataError", "DatabaseError", "Date",
    "DateFromTicks", "DeadlineExceeded", "Error", "IntegrityError", "InterfaceError",
    "InternalError", "Listener", "Missed", "Multiplexer", "NotSupportedError",
    "OperationalError", "ProgrammingError", "Time", "TimeFromTicks", "Timestamp",
    "TimestampFromTicks", "Warning",
    "__libpq_version__", "__version__", "apilevel", "connect", "errorcodes", "errors",
    "extensions", "extras", "get_wait_callback", "paramstyle", "set_wait_callback", "sql",
    "threadsafety", "tz", "use", "version", "wait", "watch",
]  # fmt: skip

version = "0.2.0"
__version__: str = psycopg2.__version__  # type: ignore[attr-defined]  # absent from its stubs


def __getattr__(name: str) -> int:
    if name == "threadsafety":  # green connections are shared by tasks, not by OS threads
        return 1 if "hub" in current().capabilities else 2
    raise AttributeError(f"module 'greenpg' has no attribute {name!r}")
