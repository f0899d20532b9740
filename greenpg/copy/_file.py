"""COPY: psycopg2's copy methods, streamed inside the wait callback."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

from psycopg2 import extensions as ext

from greenpg._protocol.generators import BLOCK, Steps, copy_in, copy_out, end_copy_in
from greenpg._protocol.libpq import PGRES_COPY_IN, libpq
from greenpg._psycopg2.identifiers import quoted

_MESSAGE_LIMIT: Final = 1000  # bytes of a file's error that are sent to the server


class FileTransfer:
    """Moves data between a user's file and the server; an exception of the file is kept.

    psycopg2's C code uses the connection meanwhile: the file's methods may wait, but not use it.
    """

    lasting = False

    def __init__(self, conn: Any, file: Any, size: int) -> None:
        libpq.need("PQputCopyData", "PQputCopyEnd", "PQgetlineAsync")
        self._file = file
        self._size = size
        self._encoding = ext.encodings[conn.encoding]
        self.incoming = False
        self.error: BaseException | None = None

    def steps(self, pgconn: int, fd: int, status: int) -> Steps:
        """Return the transfer's steps; only a failed write ends them before the transfer."""
        self.incoming = status == PGRES_COPY_IN
        return self._read_all(pgconn, fd) if self.incoming else self._write_all(pgconn, fd)

    def _read_all(self, pgconn: int, fd: int) -> Steps:
        yield from copy_in(pgconn, fd, self._blocks())
        complaint = None
        if self.error is not None:
            text = f"error in .read() call: {type(self.error).__name__} {self.error}"
            complaint = text.encode(self._encoding, "replace")[:_MESSAGE_LIMIT]
        yield from end_copy_in(pgconn, fd, complaint)

    def _blocks(self) -> Iterator[bytes]:
        try:
            read, gathered, total = self._file.read, list[bytes](), 0
            while data := self._encoded(read(self._size)):
                gathered.append(data)
                total += len(data)
                if total >= BLOCK:
                    yield b"".join(gathered)  # no copy of a single one
                    gathered, total = [], 0
            if gathered:
                yield b"".join(gathered)
        except GeneratorExit:
            raise
        except BaseException as err:
            self.error = err

    def _encoded(self, data: Any) -> bytes:
        if isinstance(data, str):
            return data.encode(self._encoding)
        if not isinstance(data, bytes):
            raise TypeError(f"read() returned {type(data).__name__} instead of str or bytes")
        return data

    def _write_all(self, pgconn: int, fd: int) -> Steps:
        try:
            write = self._file.write
            text = isinstance(self._file, io.TextIOBase)
        except BaseException as err:
            self.error = err
            return
        decode = codecs.getincrementaldecoder(self._encoding)().decode if text else None

        def put(block: bytes) -> bool:
            try:
                write(block if decode is None else decode(block))
            except BaseException as err:
                self.error = err
                return False
            return True

        yield from copy_out(pgconn, fd, put)


def command(
    conn: Any, table: str, direction: str, sep: str, null: str, columns: Iterable[str] | None
) -> str:
    """Return the COPY statement that psycopg2's copy_from and copy_to make."""
    names = "" if columns is None else ",".join(quoted(conn, name) for name in columns)
    listed = "" if columns is None else f"({names})" if names else "("
    return (
        f"COPY {quoted(conn, table)}{listed} {direction} "
        f"WITH DELIMITER AS {_literal(conn, sep)} NULL AS {_literal(conn, null)}"
    )


def _literal(conn: Any, value: str) -> str:
    adapted: Any = ext.QuotedString(value)
    adapted.prepare(conn)
    return str(adapted.getquoted(), ext.encodings[conn.encoding])
