"""A span of a database operation, by OpenTelemetry's conventions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer

from greenpg.errors import sqlstate_of

if TYPE_CHECKING:
    from typing_extensions import Self

# https://opentelemetry.io/docs/specs/semconv/db/postgresql/ and .../db/database-spans/, "Name"
SYSTEM: Final = "postgresql"
# What a summary may be: a text that is no SQL must not become a span's name.
COMMANDS: Final = {
    "ANALYZE", "CALL", "CREATE", "DELETE", "DO", "DROP", "EXPLAIN", "GRANT", "INSERT", "MERGE",
    "REFRESH", "REINDEX", "REVOKE", "SELECT", "SHOW", "TABLE", "TRUNCATE", "UPDATE", "VACUUM",
    "VALUES", "WITH",
}  # fmt: skip
_WORD: Final = re.compile(r"[\s(]*([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of an operation when it begins; a batch of unknown size has 0."""

    conn: Any
    name: str | None = None
    table: str | None = None
    statement: Any = None
    batch: int = 1


class Tracer:
    """Begins the spans of operations; with `query_text` they may have texts."""

    def __init__(self, provider: TracerProvider | None, query_text: bool) -> None:
        self._tracer = get_tracer("greenpg", tracer_provider=provider)
        self._query_text = query_text

    def begin(self, operation: Operation) -> Running:
        """Begin a span under the running task's current one."""
        wanted = self._query_text or operation.name is None
        text = text_of(operation.statement, operation.conn) if wanted else None
        known = known_of(
            {
                "db.system.name": SYSTEM,
                **place_of(operation.conn),
                "db.operation.name": operation.name,
                "db.collection.name": operation.table,
                "db.query.summary": None if operation.name else summary_of(text, operation.batch),
                "db.query.text": text if self._query_text else None,
            }
        )
        span = self._tracer.start_span(name_of(known), kind=SpanKind.CLIENT, attributes=known)
        running = Running(span, self._query_text)
        running.note_batch(operation.batch)
        return running


class Running:
    """The span of an operation that runs; it is never the current span, so any task may end it."""

    _ended = False

    def __init__(self, span: Span, query_text: bool) -> None:
        self._span, self._query_text = span, query_text

    def note_place(self, conn: Any) -> None:
        """Note where the operation has gone."""
        self._span.set_attributes(known_of(place_of(conn)))

    def note_batch(self, size: int) -> None:
        """Note how many statements the operation has; one is no batch."""
        if size > 1:
            self._span.set_attribute("db.operation.batch.size", size)

    def note_statements(self, statements: Iterable[Any], conn: Any) -> None:
        """Note the texts of several statements, each once."""
        if self._query_text:
            texts = dict.fromkeys(text_of(one, conn) or "" for one in statements)
            self._span.set_attribute("db.query.text", "; ".join(filter(None, texts)))

    def end(self, error: BaseException | None = None) -> None:
        """End the span, the first time; a block that the end of a generator leaves is no error."""
        if self._ended:
            return
        self._ended = True
        if error is not None and not isinstance(error, GeneratorExit):
            self._note(error)
        self._span.end()

    def _note(self, error: BaseException) -> None:
        """Note the SQLSTATE or class: an error's text may quote the statement and values."""
        sqlstate, kind = sqlstate_of(error), type(error)
        if sqlstate is not None:
            self._span.set_attribute("db.response.status_code", sqlstate)
        self._span.set_attribute("error.type", sqlstate or f"{kind.__module__}.{kind.__qualname__}")
        if self._query_text:
            self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, str(error) if self._query_text else None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.end(error)

    def __del__(self) -> None:
        """End the span of a block that was never left."""
        self.end()


def known_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that have a value."""
    return {key: value for key, value in attributes.items() if value is not None}


def place_of(conn: Any) -> dict[str, Any]:
    """Return where a connection leads, as the client knows it; nothing of a closed one."""
    if getattr(conn, "closed", True):
        return {}
    info = conn.info
    return {
        "db.namespace": info.dbname,
        "server.address": info.host,
        "server.port": info.port,
    }


def text_of(statement: Any, conn: Any) -> str | None:
    """Return a statement's text with its placeholders; None if no connection can write it."""
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    if hasattr(statement, "as_string") and not getattr(conn, "closed", True):
        return str(statement.as_string(conn))
    return statement if isinstance(statement, str) else None


def summary_of(text: str | None, batch: int) -> str | None:
    """Return the statement's command, if it begins with one."""
    found = _WORD.match(text or "")
    command = found[1].upper() if found else ""
    if command not in COMMANDS:
        return None
    return command if batch == 1 else f"BATCH {command}"


def name_of(known: dict[str, Any]) -> str:
    """Return a span's name, by the conventions."""
    target = known.get("db.collection.name") or known.get("db.namespace")
    named = " ".join(filter(None, (known.get("db.operation.name"), target)))
    return known.get("db.query.summary") or named or SYSTEM
