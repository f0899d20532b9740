"""psycopg 3 on greenpg's core: `psycopg3.connect`, `Connection`, and `patch` for psycopg itself.

psycopg 3 writes each operation as a generator that yields what it waits for, and consumes it in
`Connection.wait` under `Connection.lock`. Both are the core's here: the lock is the session's
(`OperationLock`), and `wait` drives the generator by the connection's own waiter. An interrupt
cancels the query and drives the same generator to its end, under a shield, so that psycopg's own
clean-up finds the connection as it expects it; the exception then propagates unchanged.

psycopg sends COMMIT in a failed transaction without an error, so the rule that only a rollback may
follow an interrupt is applied where statements are sent (`State.admit`), not at the lock.

psycopg's asynchronous classes are left alone.
"""

from . import _requirement as _requirement  # first: it says what is missing
from ._connection import Connection, connect
from ._conninfo import CONNINFO as CONNINFO  # for pools and listeners
from ._cursor import Cursor, ServerCursor
from ._errors import ERRORS as ERRORS
from ._errors import DeadlineExceeded
from ._patching import is_patched as is_patched  # for the doctor
from ._patching import patch, unpatch

__all__ = [
    "Connection", "Cursor", "DeadlineExceeded", "ServerCursor", "connect", "patch", "unpatch",
]  # fmt: skip
