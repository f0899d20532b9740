"""libpq's functions, called in the copy of libpq that psycopg2 is linked with."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, PYFUNCTYPE, c_char, c_char_p, c_int, c_void_p
from enum import IntEnum
from functools import cache
from typing import Any, Final, TypeAlias

import psycopg2._psycopg
from psycopg2 import extensions as ext

from greenpg.errors import FeatureUnavailable

PGRES_EMPTY_QUERY: Final = 0
PGRES_COMMAND_OK: Final = 1
PGRES_TUPLES_OK: Final = 2
PGRES_FATAL_ERROR: Final = 7
PGRES_PIPELINE_SYNC: Final = 10
PGRES_PIPELINE_ABORTED: Final = 11
PGRES_COPY_OUT: Final = 3
PGRES_COPY_IN: Final = 4
PGRES_COPY_BOTH: Final = 8
_NO_PORT: Final = b"99999999"  # libpq refuses it before it resolves the host's name

Polling = IntEnum("Polling", ["FAILED", "READING", "WRITING", "OK"], start=0)
Parameter: TypeAlias = tuple[int, bytes]  # a type's oid and a binary value

_P, _I, _S = c_void_p, c_int, c_char_p  # a pointer, an integer, a string
as_pointer: Final = c_void_p.from_param  # makes of an address what a quick function takes


class Pointer(ctypes._Pointer):  # type: ignore[type-arg]  # generic for checkers alone
    """A pointer as an object: ctypes passes it on faster than an integer or a c_void_p."""

    _type_ = c_char


class ConninfoOption(ctypes.Structure):
    """libpq's PQconninfoOption."""

    _fields_ = (
        ("keyword", _S), ("envvar", _S), ("compiled", _S), ("val", _S),
        ("label", _S), ("dispchar", _S), ("dispsize", _I),
    )  # fmt: skip


_O: Final = POINTER(ConninfoOption)
_FUNCTIONS: Final[tuple[tuple[Any, tuple[Any, ...], str], ...]] = (
    (_I, (_P,), "PQconnectionNeedsPassword PQstatus PQsocket PQflush PQconsumeInput PQisBusy"),
    (_I, (_P,), "PQenterPipelineMode PQexitPipelineMode PQpipelineSync PQsendFlushRequest"),
    (_I, (_P,), "PQpipelineStatus PQsendPipelineSync"),
    (_I, (_P,), "PQcancelStart PQcancelPoll PQcancelSocket PQresultStatus PQntuples PQnfields"),
    (_S, (_P,), "PQerrorMessage PQcancelErrorMessage PQresultErrorMessage PQcmdTuples PQcmdStatus"),
    (_P, (_P,), "PQgetResult PQcancelCreate"),
    (None, (_P,), "PQclear PQfreemem PQcancelFinish"),
    (ctypes.c_size_t, (_P,), "PQresultMemorySize"),
    (_I, (_P, _I), "PQfsize PQfmod PQftablecol PQsetErrorVerbosity"),
    (_S, (_P, _I), "PQfname PQresultErrorField"),
    (ctypes.c_uint, (_P, _I), "PQftype PQftable"),
    (_I, (_P, _I, _I), "PQgetlength PQgetisnull"),
    (_S, (_P, _I, _I), "PQgetvalue"),
    (_I, (_P, _S), "PQputCopyEnd PQsendClosePrepared"),
    (_I, (_P, _S, _I), "PQputCopyData"),
    (_I, (_P, POINTER(_P), _I), "PQgetCopyData"),
    (_I, (_P, _P, _I), "PQgetlineAsync"),
    (_I, (_P, _S, _I, _P, _P, _P, _P, _I), "PQsendQueryParams"),
    (_I, (_P, _S, _S, _I, _P), "PQsendPrepare"),
    (_I, (_P, _S, _I, _P, _P, _P, _I), "PQsendQueryPrepared"),
    (_P, (POINTER(_S), POINTER(_S), _I), "PQconnectStartParams"),
    (_O, (_P,), "PQconninfo"),
    (None, (_O,), "PQconninfoFree"),
    (None, (_P,), "PQfinish"),
)
_SIGNATURES: Final = {name: of[:2] for of in _FUNCTIONS for name in of[2].split()}


class Libpq:
    """The functions as attributes; one that this libpq lacks raises FeatureUnavailable.

    They keep the GIL (ctypes manual, PyDLL), so only functions that never block are listed.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._dll: Any = None
        try:
            self._dll = ctypes.PyDLL(psycopg2._psycopg.__file__)
            found, used = self._dll.PQlibVersion(), ext.libpq_version()
            if found != used:
                raise OSError(f"found libpq {found}, psycopg2 uses {used}")
        except (OSError, AttributeError, TypeError) as err:
            self._dll, self._reason = None, f"psycopg2's libpq cannot be reached: {err}"

    def has(self, *names: str) -> bool:
        """Return True if this libpq has all these functions."""
        return self._dll is not None and all(hasattr(self._dll, name) for name in names)

    def need(self, *names: str) -> None:
        """Raise FeatureUnavailable unless this libpq has all these functions."""
        for name in names:
            if not self.has(name):
                reason = self._reason or f"libpq {ext.libpq_version()} has no {name}"
                raise FeatureUnavailable(f"{reason}; install psycopg2-binary or a newer libpq")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _SIGNATURES:
            raise AttributeError(name)
        self.need(name)
        function: Callable[..., Any] = getattr(self._dll, name)
        function.restype, function.argtypes = _SIGNATURES[name]  # type: ignore[attr-defined]  # ctypes
        setattr(self, name, function)
        return function

    def quick(self, name: str) -> Callable[..., Any]:
        """Return a function that takes its arguments unchecked, and returns pointers as Pointers.

        A pointer is to be a Pointer, or `as_pointer(address)`. To convert arguments is
        most of what a call costs (`greenpg bench -w multiplexer`). A call raises
        FeatureUnavailable if this libpq lacks the function.
        """
        if not self.has(name):
            return lambda *_: self.need(name)
        function: Any = self._dll[name]  # an object of its own for each call
        result = _SIGNATURES[name][0]
        function.restype = Pointer if result is c_void_p else result
        quick: Callable[..., Any] = function
        return quick

    def settings(self, dsn: str) -> dict[str, str]:
        """Return all parameters that libpq would connect with, from whatever source.

        Empty if it cannot read them.
        """
        with self._unconnected(dsn, b"sslmode", b"?") as pgconn:
            return self._options(self.PQconninfo(pgconn))

    def refusal(self, dsn: str) -> str | None:
        """Return libpq's error if it would refuse the parameters before it tries a host."""
        with self._unconnected(dsn, b"port", _NO_PORT) as pgconn:
            text = self.PQerrorMessage(pgconn) or b""
            return None if _NO_PORT in text else str(text, errors="replace")

    @contextmanager
    def _unconnected(self, dsn: str, name: bytes, wrong: bytes) -> Iterator[int]:
        """Give a PGconn that will never have a socket, since the parameter's value is wrong."""
        names, values = texts([b"dbname", name, None]), texts([dsn.encode(), wrong, None])
        pgconn = self.PQconnectStartParams(names, values, True)
        try:
            yield pgconn
        finally:
            self.PQfinish(pgconn)

    def _options(self, array: Any) -> dict[str, str]:
        """Return the options of a PQconninfoOption array that have a value, and free it."""
        found: dict[str, str] = {}
        for option in array:
            if option.keyword is None:
                break
            if option.val is not None:
                found[option.keyword.decode()] = option.val.decode(errors="surrogateescape")
        self.PQconninfoFree(array)
        return found


libpq: Final = Libpq()


@cache
def _array(kind: Any, count: int) -> Any:
    """Return a C array type, cached: to make a new one is slow (`greenpg bench -w many`)."""
    return kind * count


def error_message(pgconn: int | Pointer) -> str:
    """Return the text of the connection's last error."""
    return str(libpq.PQerrorMessage(pgconn) or b"", errors="replace")


def texts(values: list[bytes | None]) -> Any:
    """Return a C array of strings for a statement's parameters."""
    return _array(c_char_p, len(values))(*values)


def oids(types: tuple[int, ...]) -> Any:
    """Return a C array of type oids; 0 lets the server choose."""
    return _array(ctypes.c_uint, len(types))(*types)


def send_query(pgconn: int, sql: bytes, parameters: Sequence[Parameter]) -> bool:
    """Send a statement with binary parameters, asking for binary results; False if refused."""
    count = len(parameters)
    types, values = zip(*parameters, strict=True)
    lengths = _array(c_int, count)(*map(len, values))
    formats = _array(c_int, count)(*[1] * count)
    arrays = oids(types), texts(list(values)), lengths, formats
    return bool(libpq.PQsendQueryParams(pgconn, sql, count, *arrays, 1))


def single_value(result: int) -> bytes:
    """Return the one value of a result of one row and one column."""
    return ctypes.string_at(_value_address()(result, 0, 0), libpq.PQgetlength(result, 0, 0))


@cache
def _value_address() -> Callable[..., int]:
    """Return PQgetvalue as a function that returns a pointer: the value may contain zero bytes."""
    return PYFUNCTYPE(_P, _P, _I, _I)(("PQgetvalue", libpq._dll))
