"""Steps of the protocol as generators: they yield what they wait for, and use no event loop.

A step yields (descriptor, READ|WRITE bits) and continues when the descriptor is ready; without
bits, the runner may let other tasks run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, TypeAlias, cast

from psycopg2 import OperationalError

from greenpg.backend import READ, WRITE

from .copy_buffers import CopyBuffer, skip_copy_data
from .libpq import (
    PGRES_COPY_BOTH,
    PGRES_COPY_IN,
    PGRES_COPY_OUT,
    PGRES_FATAL_ERROR,
    Parameter,
    Polling,
    error_message,
    libpq,
    send_query,
    single_value,
)

BLOCK: Final = 65536
COPYING: Final = (PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH)
UNEXPECTED: Final = "the server's answer does not follow the protocol"
Steps: TypeAlias = Generator[tuple[int, int], None, None]


def can_cancel_stepwise() -> bool:
    """Return True if libpq can cancel without blocking (PostgreSQL 17 and later)."""
    return libpq.has("PQcancelCreate", "PQcancelStart", "PQcancelPoll", "PQcancelFinish")


def cancel(request: int) -> Steps:
    """Send the request of PQcancelCreate; OperationalError if it cannot be delivered."""
    status = Polling.WRITING if libpq.PQcancelStart(request) else Polling.FAILED
    while status != Polling.OK:
        if status == Polling.FAILED:
            text = str(libpq.PQcancelErrorMessage(request) or b"", errors="replace")
            raise OperationalError(f"cancel request not delivered: {text}")
        yield libpq.PQcancelSocket(request), READ if status == Polling.READING else WRITE
        status = libpq.PQcancelPoll(request)


def flush(pgconn: int, fd: int) -> Steps:
    """Send the queued data and read meanwhile: else both may wait forever (manual, PQflush)."""
    while libpq.PQflush(pgconn) == 1:
        yield fd, READ | WRITE
        libpq.PQconsumeInput(pgconn)


def call(
    pgconn: int, fd: int, sql: bytes, parameters: Sequence[Parameter]
) -> Generator[tuple[int, int], None, tuple[bytes, bytes | None]]:
    """Return a statement's one value, in binary, and the server's error; raises like `results`."""
    if not send_query(pgconn, sql, parameters):
        raise _lost(pgconn)
    yield from flush(pgconn, fd)
    value, error = b"", None

    def take(result: int) -> None:
        nonlocal value, error
        if libpq.PQresultStatus(result) == PGRES_FATAL_ERROR:
            error = error or libpq.PQresultErrorMessage(result)
        elif libpq.PQntuples(result) and libpq.PQnfields(result):
            value = single_value(result)
        else:
            raise OperationalError(UNEXPECTED)

    yield from results(pgconn, fd, take)
    return value, error


def finish(pgconn: int, fd: int) -> Steps:
    """Finish an unfinished operation and drop its results; raises like `results`."""
    yield from flush(pgconn, fd)
    yield from results(pgconn, fd, lambda result: None)


def results(pgconn: int, fd: int, take: Callable[[int], None]) -> Steps:
    """Pass each result to `take` and end a COPY; OperationalError if the connection is lost."""
    while result := (yield from _next_result(pgconn, fd)):
        try:
            status = libpq.PQresultStatus(result)
            if status not in COPYING:
                take(result)
        finally:
            libpq.PQclear(result)
        if status in COPYING:
            yield from end_copy(pgconn, fd)
        yield fd, 0


def _next_result(pgconn: int, fd: int) -> Generator[tuple[int, int], None, int | None]:
    while libpq.PQisBusy(pgconn):
        yield fd, READ
        if not libpq.PQconsumeInput(pgconn):
            raise _lost(pgconn)
    return cast("int | None", libpq.PQgetResult(pgconn))


def _lost(pgconn: int) -> OperationalError:
    return OperationalError(error_message(pgconn) or UNEXPECTED)


def copy_status(pgconn: int) -> int:
    """Return PGRES_COPY_IN, _OUT or _BOTH of the transfer that has begun."""
    result = libpq.PQgetResult(pgconn)  # a new one, without side effects (fe-exec.c, getCopyResult)
    try:
        return int(libpq.PQresultStatus(result))
    finally:
        libpq.PQclear(result)


def copy_in(pgconn: int, fd: int, blocks: Iterator[bytes]) -> Steps:
    """Send the blocks; each is flushed before the next one is requested."""
    for block in blocks:
        for start in range(0, len(block), BLOCK):
            part = block[start : start + BLOCK]  # no copy if it is all one part
            if libpq.PQputCopyData(pgconn, part, len(part)) < 0:
                return  # the connection's next poll raises the reason
            yield from flush(pgconn, fd)
            if libpq.PQstatus(pgconn):
                return  # lost: libpq drops all further data (fe-misc.c, pqSendSome)
            yield fd, 0


def end_copy_in(pgconn: int, fd: int, error: bytes | None = None) -> Steps:
    """Report to the server that the data is complete, or that the COPY fails with `error`."""
    libpq.PQputCopyEnd(pgconn, error)
    yield from flush(pgconn, fd)


def copy_out(pgconn: int, fd: int, write: Callable[[bytes], bool]) -> Steps:
    """Pass the received data to `write`, until its end or until `write` returns False."""
    buffer = CopyBuffer()
    while True:
        block, ended = buffer.fill(pgconn)
        if (block and not write(block)) or ended:
            return
        yield fd, 0 if block else READ
        if len(block) < buffer.SIZE and not buffer.consume(pgconn):
            return


def receive(pgconn: int, fd: int, buffer: CopyBuffer) -> Generator[tuple[int, int], None, bytes]:
    """Wait for data of a COPY and return it, b"" at its end; raises like `results`."""
    asked = False
    while True:
        block, ended = buffer.fill(pgconn)
        if block or ended:
            yield fd, 0
            return block
        if asked:
            yield fd, READ
        if not buffer.consume(pgconn):
            raise _lost(pgconn)
        asked = True


def send(pgconn: int, fd: int, block: bytes) -> Steps:
    """Send data of a COPY; OperationalError if the connection is lost."""
    yield from copy_in(pgconn, fd, iter([block]))
    if libpq.PQstatus(pgconn):
        raise _lost(pgconn)


def end_copy(pgconn: int, fd: int) -> Steps:
    """End a transfer of any kind, without data; OperationalError if libpq is in none."""
    status = copy_status(pgconn)
    if status not in COPYING:
        raise _lost(pgconn)
    if status != PGRES_COPY_OUT:
        error = b"interrupted" if status == PGRES_COPY_IN else None
        yield from end_copy_in(pgconn, fd, error)
    if status != PGRES_COPY_IN:
        while (left := skip_copy_data(pgconn)) >= 0:
            yield fd, 0 if left else READ
            if not (left or libpq.PQconsumeInput(pgconn)):
                return
        if left < -1:  # libpq stays in the COPY, and would return its result forever
            raise _lost(pgconn)
