"""Large objects: psycopg2's `lobject` class with green waits."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

from psycopg2 import Error, InterfaceError, OperationalError, ProgrammingError
from psycopg2 import extensions as ext

from ._green_classes import become, green, with_c_methods
from ._protocol.generators import UNEXPECTED, call, finish
from ._protocol.libpq import libpq
from ._protocol.parameters import BYTEA, INT4, INT8
from ._psycopg2.operation import drive, pgconn_of
from ._psycopg2.psycopg2_c import c_connection, c_cursor, c_lobject, execute, transaction_status
from ._psycopg2.transaction_mark import TransactionMark

if TYPE_CHECKING:
    from ._protocol.libpq import Parameter

__all__ = ["Lobject"]

_T = TypeVar("_T")
PIECE: Final = 262144  # bytes per call at most; longer data takes several calls
LARGE: Final = 32768  # bytes of a loread for which the server allocates a block of its own
CLOSED: Final = "lobject already closed"
OUTSIDE: Final = "can't use a lobject outside of transactions"
_MODE: Final = re.compile("(rw|r|w|n|)(t|b|)")
_READ, _WRITE = 0x40000, 0x20000
_FLAGS: Final = {"n": 0, "r": _READ, "w": _WRITE, "rw": _READ | _WRITE}
_IN_TRANSACTION: Final = ext.TRANSACTION_STATUS_INTRANS


@green(c_lobject)
class Lobject(c_lobject):
    """psycopg2's large object; also a context manager that closes it, and a raw file for `io`.

    It is closed at the latest at the end of the transaction in which it was opened.
    """

    # the __init__ of the C class would block (psycopg2, lobject_type.c): the C fields stay empty
    _greenpg_conn: Any = None
    _greenpg_fd = -1
    _greenpg_oid = 0
    _greenpg_mode: str | None = None
    _greenpg_text = True
    _greenpg_mark: Any = None
    _greenpg_primed = False  # True once the server has run a large call
    _greenpg_ahead, _greenpg_taken = (
        b"",
        0,
    )  # data read ahead, and how many bytes of it were returned
    _greenpg_stride = 0  # bytes to request at least; grows while one read follows another

    def __init__(
        self,
        conn: Any,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
    ) -> None:
        """Open a large object, or create one if `oid` is 0; see `Connection.lobject`."""
        if not isinstance(conn, c_connection):
            raise TypeError(f"argument 1 must be a greenpg connection, not {type(conn).__name__}")
        if not hasattr(conn, "_greenpg_state"):  # a plain connection
            become(self, _PlainLobject)
            c_lobject.__init__(self, conn, oid, mode, new_oid, new_file)
            return
        libpq.need("PQsendQueryParams", "PQgetvalue", "PQgetlength")
        if conn.autocommit:
            raise ProgrammingError(OUTSIDE)
        parsed = _MODE.fullmatch(mode or "")
        if parsed is None:
            raise ValueError(f"bad mode for lobject: '{mode}'")
        access = parsed[1] or "r" if oid else "w"
        self._greenpg_text = parsed[2] != "b"
        self._greenpg_mark = TransactionMark(conn)
        self._greenpg_conn = conn
        self._greenpg_begun(self._greenpg_open, _oid(oid), access, _oid(new_oid), new_file)
        self._greenpg_mode = (
            access if access == "n" else access + ("t" if self._greenpg_text else "b")
        )

    def _greenpg_open(
        self, conn: Any, oid: int, access: str, new_oid: int, new_file: str | None
    ) -> None:
        if oid:
            self._greenpg_oid = oid
            if access != "n":
                (self._greenpg_fd,) = _select(conn, _LO_OPEN, oid, _FLAGS[access])
        elif new_file is not None:
            with _file(new_file, "read from") as file:
                self._greenpg_create(conn)
                while piece := file.read(PIECE):
                    self._greenpg_write(conn, piece)
                self._greenpg_seek(conn, 0, os.SEEK_SET)
        else:
            self._greenpg_create(conn, new_oid)

    def _greenpg_create(self, conn: Any, oid: int = 0) -> None:
        creation = (_LO_CREATE, _WRITE, oid) if oid else (_LO_CREAT, _WRITE)
        self._greenpg_oid, self._greenpg_fd = _select(conn, *creation)

    @property
    def oid(self) -> int:
        """The number of the large object in the database."""
        return self._greenpg_oid

    @property
    def mode(self) -> Any:
        """The mode in which it was opened: 'r', 'w' or 'rw' with 't' or 'b', or 'n'."""
        return self._greenpg_mode

    @property
    def closed(self) -> bool:
        """True if the large object or its connection is closed."""
        return self._greenpg_conn is None or self._greenpg_fd < 0 or self._greenpg_conn.closed != 0

    def read(self, size: int = -1) -> Any:
        """Return up to `size` bytes, or all the rest if `size` is negative; str in text mode.

        In text mode UnicodeDecodeError is raised if the bytes end inside a character.
        """
        data = self._greenpg_opened(self._greenpg_read_on, index(size))
        return data.decode(_encoding(self._greenpg_conn)) if self._greenpg_text else data

    def _greenpg_read_on(self, conn: Any, size: int) -> bytes:
        """Read ahead in mode "r": its data comes from one snapshot and cannot change.

        The manual says so of INV_READ (chapter "Large Objects", section "Opening an Existing
        Large Object"). A failed transaction does not use data read ahead: the server must refuse.
        """
        if self._greenpg_mode not in ("rt", "rb") or transaction_status(conn) != _IN_TRANSACTION:
            return self._greenpg_read(conn, size)
        end = None if size < 0 else self._greenpg_taken + size
        found = self._greenpg_ahead[self._greenpg_taken : end]
        if len(found) == size:
            self._greenpg_taken += size
            return found
        left = -1 if size < 0 else size - len(found)
        got = self._greenpg_read(
            conn, max(left, self._greenpg_stride) if 0 < left < PIECE else left
        )
        self._greenpg_ahead, self._greenpg_taken = (got, left) if 0 <= left < len(got) else (b"", 0)
        self._greenpg_stride = min(2 * max(size, self._greenpg_stride), PIECE)
        return found + (got[:left] if self._greenpg_ahead else got)

    def _greenpg_unread(self) -> int:
        """Return how many bytes the server's position is ahead of the caller's."""
        return len(self._greenpg_ahead) - self._greenpg_taken

    def _greenpg_read(self, conn: Any, size: int) -> bytes:
        pieces: list[bytes] = []
        left = size
        while True:
            wanted = PIECE if left < 0 else min(left, PIECE)
            statement = _FIRST_LOREAD if wanted >= LARGE and not self._greenpg_primed else _LOREAD
            pieces.append(_call(conn, statement, _int4(self._greenpg_fd), _int4(wanted)))
            self._greenpg_primed = self._greenpg_primed or wanted >= LARGE
            left -= wanted if left > 0 else 0
            if not left or len(pieces[-1]) < wanted:
                return b"".join(pieces)  # no copy of a single one

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer and return their number."""
        view = memoryview(buffer).cast("B")
        data = self._greenpg_opened(self._greenpg_read_on, len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        """Write bytes, or str in the connection's encoding; return the number of bytes."""
        return self._greenpg_opened(self._greenpg_write, data)

    def _greenpg_write(self, conn: Any, data: Any) -> int:
        source = _as_bytes(conn, data)
        written = 0
        for start in range(0, max(len(source), 1), PIECE):
            piece = bytes(source[start : start + PIECE])  # no copy if it is all one piece
            written += _number(_call(conn, _LOWRITE, _int4(self._greenpg_fd), (BYTEA, piece)))
        return written

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, also beyond 2 GB, and return it; `whence` is as for files."""
        return self._greenpg_opened(self._greenpg_seek, index(offset), index(whence))

    def _greenpg_seek(self, conn: Any, offset: int, whence: int) -> int:
        if whence == os.SEEK_CUR:
            offset -= self._greenpg_unread()
        target = _int8(offset), _int4(whence)  # first: if this raises, nothing has moved
        self._greenpg_ahead, self._greenpg_taken, self._greenpg_stride = b"", 0, 0
        return _number(_call(conn, _LO_LSEEK, _int4(self._greenpg_fd), *target))

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._greenpg_opened(self._greenpg_tell)

    def _greenpg_tell(self, conn: Any) -> int:
        return _number(_call(conn, _LO_TELL, _int4(self._greenpg_fd))) - self._greenpg_unread()

    def truncate(self, len: int = 0) -> None:
        """Cut to a size in bytes, or extend to it with zeros; the position does not change."""
        size = index(len)
        self._greenpg_opened(
            lambda conn: _call(conn, _LO_TRUNCATE, _int4(self._greenpg_fd), _int8(size))
        )

    def close(self) -> None:
        """Close the large object; callable any number of times, also after its transaction."""
        if self.closed or self._greenpg_conn.autocommit:
            return
        rolls_back = self._greenpg_conn._greenpg_state.must_roll_back
        if rolls_back or sys.is_finalizing():  # the transaction's end will close it
            self._greenpg_fd = -1
        else:
            self._greenpg_begun(self._greenpg_close)

    def _greenpg_close(self, conn: Any) -> None:
        if self._greenpg_fd >= 0 and self._greenpg_mark.is_current():
            fd, self._greenpg_fd = self._greenpg_fd, -1
            _call(conn, _LO_CLOSE, _int4(fd))

    def unlink(self) -> None:
        """Close the large object and remove it from the database; also if it is closed."""
        self._greenpg_begun(self._greenpg_unlink)

    def _greenpg_unlink(self, conn: Any) -> None:
        if not conn.autocommit:
            self._greenpg_close(conn)
        _select(conn, _LO_UNLINK, self._greenpg_oid)

    def export(self, filename: str) -> None:
        """Write the whole large object to a file on this machine; also if it is closed."""
        if self._greenpg_conn is not None and self._greenpg_conn.autocommit:
            raise ProgrammingError(OUTSIDE)
        self._greenpg_begun(self._greenpg_export, filename)

    def _greenpg_export(self, conn: Any, filename: str) -> None:
        source = Lobject.__new__(Lobject)
        (source._greenpg_fd,) = _select(conn, _LO_OPEN, self._greenpg_oid, _READ)
        with _file(filename, "write to") as file:
            while piece := source._greenpg_read(conn, PIECE):
                file.write(piece)
        _call(conn, _LO_CLOSE, _int4(source._greenpg_fd))

    def readable(self) -> bool:
        """Return True if it was opened for reading or writing; the server allows both to read."""
        return self.mode not in (None, "n")

    def writable(self) -> bool:
        """Return True if it was opened for writing."""
        return "w" in (self.mode or "")

    def seekable(self) -> bool:
        """Return True: a large object has positions."""
        return True

    def flush(self) -> None:
        """Do nothing: `write` sends its data to the server at once."""

    def __enter__(self) -> Lobject:
        return self

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> None:
        with suppress(*() if exc is None else (Error,)):  # never replaces the block's own error
            self.close()

    def __repr__(self) -> str:
        return f"<lobject object at {id(self):#x}; closed: {self.closed:d}>"

    def _greenpg_begun(self, method: Callable[..., _T], *args: Any) -> _T:
        """Run a method under the connection's lock, with all its calls as one operation."""
        if self._greenpg_conn is None:
            raise InterfaceError(CLOSED)
        return cast("_T", self._greenpg_conn._greenpg_run(method, *args, finish_on_interrupt=False))

    def _greenpg_opened(self, method: Callable[..., _T], *args: Any) -> _T:
        """Run a method that requires an open large object."""
        return cast("_T", self._greenpg_begun(self._greenpg_if_open, method, *args))

    def _greenpg_if_open(self, conn: Any, method: Callable[..., Any], *args: Any) -> Any:
        if self.closed:
            raise InterfaceError(CLOSED)
        if conn.autocommit:
            raise ProgrammingError(OUTSIDE)
        if not self._greenpg_mark.is_current():
            raise ProgrammingError("lobject isn't valid anymore")
        return method(conn, *args)


_PlainLobject: Final = with_c_methods(Lobject, c_lobject)

_LO_CREAT: Final = "SELECT o, pg_catalog.lo_open(o, %s) FROM pg_catalog.lo_creat(-1) o"
_LO_CREATE: Final = "SELECT o, pg_catalog.lo_open(o, %s) FROM pg_catalog.lo_create(%s::oid) o"
_LO_OPEN: Final = "SELECT pg_catalog.lo_open(%s::oid, %s)"
_LO_UNLINK: Final = "SELECT pg_catalog.lo_unlink(%s::oid)"
_LOREAD: Final = b"SELECT pg_catalog.loread($1, $2)"
# glibc returns the memory of each such call to the system, until one call has freed a large block:
# that raises the thresholds (mallopt(3), M_MMAP_THRESHOLD, "dynamic"): `greenpg bench -w lobject`
_FIRST_LOREAD: Final = _LOREAD + (
    b", pg_catalog.octet_length(pg_catalog.repeat(pg_catalog.repeat(' ', 1200), 1200))"
)
_LOWRITE: Final = b"SELECT pg_catalog.lowrite($1, $2)"
_LO_LSEEK: Final = b"SELECT pg_catalog.lo_lseek64($1, $2, $3)"
_LO_TELL: Final = b"SELECT pg_catalog.lo_tell64($1)"
_LO_TRUNCATE: Final = b"SELECT pg_catalog.lo_truncate64($1, $2)"
_LO_CLOSE: Final = b"SELECT pg_catalog.lo_close($1)"


def _integer(text: Any, cur: Any) -> int:
    return int(text)


_NUMBER: Final = ext.new_type((20, 23, 26), "LARGE OBJECT NUMBER", _integer)


def _select(conn: Any, statement: str, *args: int) -> tuple[int, ...]:
    """Run a statement through psycopg2, which begins a transaction if there is none."""
    if conn.closed:
        raise conn._greenpg_state.closed_error()
    if conn.status == ext.STATUS_PREPARED:
        raise ProgrammingError("lobject cannot be used with a prepared two-phase transaction")
    cur = c_cursor(conn)
    ext.register_type(_NUMBER, cur)
    try:
        execute(cur, statement, args)
    except Error as err:
        raise err if err.pgerror is None else OperationalError(err.pgerror) from err
    if conn._greenpg_state.pending is not None:  # interrupted: nothing may follow
        raise conn._greenpg_state.pending
    return _only_row(conn, cur, 2 if statement in (_LO_CREAT, _LO_CREATE) else 1)


def _only_row(conn: Any, cur: Any, width: int) -> tuple[int, ...]:
    """Return a statement's numbers; an answer without them closes the connection."""
    row: Any = None
    with suppress(ValueError, TypeError, ProgrammingError):
        row = c_cursor.fetchone(cur)
    if row is None or len(row) != width or not all(isinstance(value, int) for value in row):
        conn._greenpg_state.shut(conn)
        raise OperationalError(UNEXPECTED)
    return cast("tuple[int, ...]", row)


def _call(conn: Any, statement: bytes, *parameters: Parameter) -> bytes:
    """Run a statement by libpq, without psycopg2, with binary parameters and a binary result."""
    pgconn, fd = pgconn_of(conn)
    answer = drive(conn, call(pgconn, fd, statement, parameters), partial(finish, pgconn, fd))
    if answer is None:
        raise conn._greenpg_state.pending
    value, error = answer
    if error is not None:
        raise OperationalError(error.decode(_encoding(conn), "replace"))
    return value


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _int4(number: int) -> Parameter:
    return INT4, number.to_bytes(4, "big", signed=True)


def _int8(number: int) -> Parameter:
    return INT8, number.to_bytes(8, "big", signed=True)


def _oid(number: int) -> int:
    return index(number) & 0xFFFFFFFF  # as psycopg2 does: a C unsigned int


def _encoding(conn: Any) -> str:
    return ext.encodings[conn.encoding]


def _as_bytes(conn: Any, data: Any) -> bytes | memoryview:
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode(_encoding(conn))
    try:
        return memoryview(data).cast("B")
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"lobject.write requires a string; got {kind} instead") from None


@contextmanager
def _file(name: str, verb: str) -> Iterator[BinaryIO]:
    """Open a file for a `verb`, "read from" or "write to"; its errors have libpq's texts."""
    fault = "open"
    try:
        with open(name, "rb" if verb == "read from" else "wb") as file:
            fault = verb
            yield file
    except OSError as err:
        raise OperationalError(f'could not {fault} file "{name}": {err.strerror}\n') from err
