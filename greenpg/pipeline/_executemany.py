"""executemany in pipeline mode, with psycopg2's results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import Error
from psycopg2 import extensions as ext

from greenpg._green_classes import green_class
from greenpg._protocol import results
from greenpg._protocol.libpq import PGRES_COMMAND_OK, PGRES_TUPLES_OK, libpq, oids, texts
from greenpg._protocol.parameters import PlainInsert
from greenpg._protocol.pipelining import Pipe, has_pipelines
from greenpg._psycopg2.operation import collect_notices, pgconn_of, run_operation
from greenpg._psycopg2.psycopg2_c import c_cursor

if TYPE_CHECKING:
    from greenpg._protocol.generators import Steps

PART: Final = 5000  # rows kept in memory, for psycopg2 to run if the pipeline fails
WORTH_IT: Final = 4
_DML: Final = re.compile(r"\s*(?:insert|update|delete|merge)\b[^;]*\Z", re.I)
_CANCELLED: Final = b"57014"
_c_rowcount: Final[Any] = c_cursor.rowcount
OneByOne = Callable[[Iterable[Any]], None]


def may_pipeline(cur: Any, query: Any, rows: Any) -> bool:
    """Return True if the statement has the same effect in a pipeline.

    An iterator may depend on the effect of previous rows, so it is not read ahead.
    """
    if not isinstance(query, str) or not _DML.match(query) or not isinstance(rows, Sequence):
        return False
    return has_pipelines() and not cur.connection.async_ and cur.name is None


class _Silent:
    """Ignores answers to preparations and savepoints: the statements after an error fail too."""

    def take(self, result: int, status: int) -> None:
        pass


_SILENT: Final = _Silent()


class _Part:
    """Sends rows within a savepoint and counts the rows that they touch, until one fails."""

    def __init__(self, cur: Any, query: str, plain: PlainInsert | None) -> None:
        conn = cur.connection
        self.pipe = Pipe(*pgconn_of(conn))
        self.touched = 0
        self.failed = False
        self.cancelled: Error | None = None
        self._cur, self._query, self._plain = cur, query, plain
        self._encoding = ext.encodings[conn.encoding]

    def take(self, result: int, status: int) -> None:
        if status in (PGRES_COMMAND_OK, PGRES_TUPLES_OK):
            self.touched += max(results.rowcount(result), 0)
        else:
            self.failed = True
            if libpq.PQresultErrorField(result, ord("C")) == _CANCELLED:
                self.cancelled = results.error_of(result, self._encoding)

    def steps(self, rows: list[Any]) -> Steps:
        pipe = self.pipe
        # first: what breaks the repair may be missed
        self._cur.connection._greenpg_state.note_blocked()
        pipe.enter()
        if self._plain is not None:
            self._plain.forget()
        pipe.send(_SILENT, b"SAVEPOINT greenpg_many")
        for row in rows:
            self._send(row)
            if self.failed:
                break
            yield from pipe.turn()
        if not self.failed:
            pipe.send(_SILENT, b"RELEASE SAVEPOINT greenpg_many")
        yield from pipe.sync()
        yield from pipe.finish()
        pipe.leave()
        collect_notices(self._cur.connection)

    def _send(self, row: Any) -> None:
        """Queue one row; fail if psycopg2 cannot write it: psycopg2 then raises its own error."""
        pipe, plain = self.pipe, self._plain
        try:
            encoded = plain.encoded(row) if plain is not None else None
            sql = b"" if encoded is not None else c_cursor.mogrify(self._cur, self._query, row)
        except Exception:
            if not self._is_unwritable(row):
                raise  # from a signal handler
            self.failed = True
            return
        if plain is None or encoded is None:
            if plain is not None:
                plain.forget()
            pipe.send(self, sql)
            return
        if not plain.fits(encoded):
            pipe.prepare(_SILENT, plain.sql, oids(plain.adopt(encoded)))
        pipe.send_prepared(self, texts([text for _, text in encoded]))

    def _is_unwritable(self, row: Any) -> bool:
        try:
            if self._plain is None or self._plain.encoded(row) is None:
                c_cursor.mogrify(self._cur, self._query, row)
        except Exception:
            return True
        return False


def execute_many(cur: Any, query: str, rows: Iterator[Any], one_by_one: OneByOne) -> int:
    """Run the statement for all rows and return how many rows it touched.

    psycopg2 runs the first row, which begins the transaction, and the last, which sets the
    cursor's attributes; and all rows if each is a transaction: those after one that fails must
    not be in the server yet. A part that fails is undone and run by psycopg2, row by row: the
    error is then psycopg2's. A part that was cancelled or timed out in the server stays undone.
    """
    plain = PlainInsert.of(cur.connection, query)
    part, failure = _gather(rows, 1)
    one_by_one(part)
    touched, kept = _rowcount(cur), list[Any]()
    if cur.connection.info.transaction_status != ext.TRANSACTION_STATUS_INTRANS:
        one_by_one(rows)
        return touched + _rowcount(cur)
    more = bool(part)
    while more and failure is None:
        part, failure = _gather(rows, PART)
        more = len(part) == PART
        kept += part
        if len(kept) >= WORTH_IT:
            touched += _run_part(cur, query, kept[:-1], plain, one_by_one)
            kept = kept[-1:]
    if kept:
        one_by_one(kept)
        touched += _rowcount(cur)
    if failure is not None:
        raise failure
    return touched


def _gather(rows: Iterator[Any], size: int) -> tuple[list[Any], BaseException | None]:
    part: list[Any] = []
    try:
        for row in rows:
            part.append(row)
            if len(part) == size:
                break
    except BaseException as err:
        return part, err
    return part, None


def _run_part(
    cur: Any, query: str, rows: list[Any], plain: PlainInsert | None, one_by_one: OneByOne
) -> int:
    part = _Part(cur, query, plain)
    run_operation(cur.connection, part.steps(rows), part.pipe.abandon)
    if not part.failed:
        return part.touched
    if part.cancelled is not None:
        raise part.cancelled
    other = green_class(c_cursor)(cur.connection)
    other.execute("ROLLBACK TO SAVEPOINT greenpg_many; RELEASE SAVEPOINT greenpg_many")
    one_by_one(rows)
    return _rowcount(cur)


def _rowcount(cur: Any) -> int:
    """Return psycopg2's rowcount, 0 if unknown."""
    return max(int(_c_rowcount.__get__(cur)), 0)
