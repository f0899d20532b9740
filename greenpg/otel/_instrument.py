"""Spans of COPY, pipelines, large objects and multiplexers, by methods put in place of theirs.

A process without them has the methods as they are, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from greenpg.connection import Connection
from greenpg.cursor import Cursor
from greenpg.lobject import Lobject
from greenpg.multiplexer import Multiplexer
from greenpg.pipeline import Pipeline

from ._spans import Operation, Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from ._spans import Running

_Method = Callable[..., Any]
_Describe = Callable[..., "Operation | None"]  # by the method's arguments; None: without a span
_MISSING: Final = object()
_replaced: Final[list[tuple[type, str, Any]]] = []  # and what the class itself has there


def instrument(*, tracer_provider: TracerProvider | None = None, query_text: bool = False) -> None:
    """Make spans of COPY, pipelines, large objects and multiplexers, of existing ones too.

    With `query_text` they have the statements' texts, without parameters, and those of errors,
    which may quote values. Another call replaces the options.
    """
    uninstrument()
    tracer = Tracer(tracer_provider, query_text)
    for owner, method, describe in _calls():
        _replace(owner, method, _call(tracer, getattr(owner, method), describe))
    for owner, method, describe in _blocks():
        _replace(owner, method, _block(tracer, getattr(owner, method), describe))
    _replace(Multiplexer, "execute", _shared(tracer, Multiplexer.execute))
    _replace(Multiplexer, "executemany", _shared_many(tracer, Multiplexer.executemany))


def uninstrument() -> None:
    """Undo `instrument`; a block that has begun still ends its span."""
    while _replaced:
        owner, method, before = _replaced.pop()
        if before is _MISSING:
            delattr(owner, method)
        else:
            setattr(owner, method, before)


def _replace(owner: type, method: str, by: _Method) -> None:
    _replaced.append((owner, method, vars(owner).get(method, _MISSING)))
    setattr(owner, method, by)


def _calls() -> list[tuple[type, str, _Describe]]:
    return [
        (Cursor, "copy_from", _table_copy),
        (Cursor, "copy_to", _table_copy),
        (Cursor, "copy_expert", _copy("sql")),
        (Lobject, "__init__", _opening),
        (Lobject, "read", _read(lambda size=-1: size)),
        (Lobject, "readinto", _read(lambda buffer: memoryview(buffer).nbytes)),
        (Lobject, "write", _large_object("lo_write")),
        (Lobject, "truncate", _large_object("lo_truncate")),
        (Lobject, "export", _large_object("lo_export")),
        (Lobject, "unlink", _large_object("lo_unlink")),
    ]


def _blocks() -> list[tuple[type, str, _Describe]]:
    blocks: list[tuple[type, str, _Describe]] = [
        (Cursor, "copy", _copy("statement")),
        (Connection, "pipeline", _pipeline),
    ]
    try:
        from greenpg import psycopg3  # not before: it imports psycopg, which is an extra
    except ImportError:
        return blocks
    blocks.append((psycopg3.Cursor, "copy", _copy("statement")))
    blocks.append((psycopg3.Connection, "pipeline", _pipeline))
    return blocks


def _given(name: str, position: int, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else options.get(name)


def _table_copy(cur: Any, *args: Any, **options: Any) -> Operation:
    return Operation(cur.connection, "COPY", table=_given("table", 1, args, options))


def _copy(name: str) -> _Describe:
    def described(cur: Any, *args: Any, **options: Any) -> Operation:
        return Operation(cur.connection, "COPY", statement=_given(name, 0, args, options))

    return described


def _pipeline(conn: Any) -> Operation | None:
    """psycopg 3 runs a pipeline within a pipeline as a part of it."""
    return None if getattr(conn, "_pipeline", None) else Operation(conn, "PIPELINE")


def _opening(_: Any, *args: Any, **options: Any) -> Operation:
    conn = _given("conn", 0, args, options)
    if _given("new_file", 4, args, options) is not None:
        return Operation(conn, "lo_import")
    return Operation(conn, "lo_open" if _given("oid", 1, args, options) else "lo_create")


def _large_object(name: str) -> _Describe:
    return lambda lobject, *_, **__: Operation(lobject._greenpg_conn, name)


def _read(size_of: Callable[..., int]) -> _Describe:
    """Describe a read, unless it is served from what was read ahead."""

    def described(lobject: Any, *args: Any, **options: Any) -> Operation | None:
        if 0 <= size_of(*args, **options) <= lobject._greenpg_unread():
            return None
        return Operation(lobject._greenpg_conn, "lo_read")

    return described


def _call(tracer: Tracer, method: _Method, describe: _Describe) -> _Method:
    """Return a method with a span."""

    @wraps(method)
    def traced(self: Any, *args: Any, **options: Any) -> Any:
        operation = describe(self, *args, **options)
        if operation is None:
            return method(self, *args, **options)
        with tracer.begin(operation):
            return method(self, *args, **options)

    return traced


def _shared(tracer: Tracer, method: _Method) -> _Method:
    """Return a multiplexer's `execute` with a span."""

    @wraps(method)
    def execute(self: Multiplexer, query: Any, vars: Any = None) -> Any:
        conn = _line_of(self)
        with tracer.begin(Operation(conn, statement=query)) as span:
            try:
                return method(self, query, vars)
            finally:
                _note_line(self, conn, span)

    return execute


def _shared_many(tracer: Tracer, method: _Method) -> _Method:
    """Return a multiplexer's `executemany` with a span."""

    @wraps(method)
    def executemany(self: Multiplexer, query: Any, rows: Iterable[Any]) -> Any:
        conn, size = _line_of(self), len(rows) if isinstance(rows, Sized) else 0
        with tracer.begin(Operation(conn, statement=query, batch=size)) as span:
            try:
                results = method(self, query, rows)
                span.note_batch(len(results))
                return results
            finally:
                _note_line(self, conn, span)

    return executemany


def _line_of(multiplexer: Any) -> Any:
    """Return one of a multiplexer's connections, which all lead to one place, if it has any."""
    cur = multiplexer._dispatcher.cursor
    return None if cur is None else cur.connection


def _note_line(multiplexer: Multiplexer, known: Any, span: Running) -> None:
    """Note where the first statement has gone, for which the multiplexer has connected."""
    if known is None:
        span.note_place(_line_of(multiplexer))


def _block(tracer: Tracer, method: _Method, describe: _Describe) -> _Method:
    """Return a method whose result is a with block, with a span of the block."""

    @wraps(method)
    def traced(self: Any, *args: Any, **options: Any) -> Any:
        operation, block = describe(self, *args, **options), method(self, *args, **options)
        if operation is None:
            return block
        if type(block) is Pipeline:
            block.__class__ = _CountingPipeline
        return _Block(tracer, operation, block)

    return traced


class _CountingPipeline(Pipeline):
    """A pipeline that keeps its statements, as they were given."""

    def __enter__(self) -> Pipeline:
        self.statements: list[Any] = []
        return super().__enter__()

    def execute(self, query: Any, vars: Any = None) -> Any:
        result = super().execute(query, vars)
        self.statements.append(query)
        return result


class _Block:
    """A with block of a driver, and its span; otherwise as the block itself."""

    def __init__(self, tracer: Tracer, operation: Operation, block: Any) -> None:
        self._tracer, self._operation, self._block = tracer, operation, block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    def __enter__(self) -> Any:
        self._span = span = self._tracer.begin(self._operation)
        try:
            return self._block.__enter__()
        except BaseException as error:
            span.end(error)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Any:
        try:
            left = self._block.__exit__(kind, error, trace)
        except BaseException as raised:
            self._end(raised)
            raise
        self._end(error)
        return left

    def _end(self, error: BaseException | None) -> None:
        if isinstance(self._block, _CountingPipeline):
            statements = self._block.statements
            self._span.note_batch(len(statements))
            self._span.note_statements(statements, self._operation.conn)
        self._span.end(error)
