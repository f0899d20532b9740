"""Operations under a connection's lock: calls into psycopg2, and libpq commands behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from psycopg2 import Error

from greenpg._session.session import CLOSE_TIMEOUT
from greenpg._session.time_slice import TimeSlice

from .cancel_request import Canceller
from .interrupts import AGAIN
from .psycopg2_c import checked_poll, close

if TYPE_CHECKING:
    from greenpg._protocol.generators import Steps
    from greenpg._session.shield import Shield

    from .state import State

_T = TypeVar("_T")
Operation: TypeAlias = Generator[tuple[int, int], None, _T]


def guarded(
    conn: Any,
    method: Callable[..., _T],
    *args: Any,
    finish_on_interrupt: bool = False,
    failed: Callable[[State, BaseException], None] | None = None,
) -> _T:
    """Call a method as one operation; what it leaves half-way is put right.

    A cleanup (`finish_on_interrupt`) while the interpreter ends closes the connection instead.
    `failed` notes on the state what an exception of the method may have left.
    """
    state: State = conn._greenpg_state
    if finish_on_interrupt and state.is_ending():
        state.abandon(conn)
        return cast("_T", None)
    state.enter(finish_on_interrupt)
    try:
        return method(*args)
    except BaseException as error:
        if failed is not None:
            failed(state, error)
        state.note_error(error)
        raise
    finally:
        state.in_driver = False
        state.leave(conn)


def run_operation(conn: Any, operation: Operation[_T], drain: Callable[[], Steps]) -> _T | None:
    """Run the steps of an operation under the connection's lock and return its value.

    Interrupted, the command is cancelled and the steps of `drain` bring libpq back to idle; the
    connection is as after any other interrupted operation.
    """
    return guarded(conn, drive, conn, operation, drain)


def drive(
    conn: Any,
    operation: Operation[_T],
    drain: Callable[[], Steps],
    time_slice: TimeSlice | None = None,
) -> _T | None:
    """Run the steps of an operation that has entered already; None if it was interrupted.

    Operations that follow one another with nothing to wait for share a time slice.
    """
    state: State = conn._greenpg_state
    time_slice = time_slice or TimeSlice(state.backend)
    stepping = True
    try:
        while True:
            stepping = True
            _, events = next(operation)
            stepping = False
            state.wait_or_pause(events, time_slice)
    except StopIteration as end:
        value: _T = end.value
        return value
    except BaseException as exc:
        operation.close()
        if stepping and isinstance(exc, Error):  # libpq has lost the server
            state.shut(conn)
            raise
        cancel_and_drain(conn, exc, drain)
        return None


def pgconn_of(conn: Any) -> tuple[int, int]:
    """Return the PGconn and its descriptor; psycopg2's error if the connection is closed."""
    state: State = conn._greenpg_state
    if conn.closed:
        raise state.closed_error()
    if state.fd < 0:
        state.settle_descriptor(conn)
    return conn.pgconn_ptr, state.fd


def collect_notices(conn: Any) -> None:
    """Collect notices and notifications that came with results; none may be left to read.

    psycopg2 collects them where it reads results itself, which this would do too.
    """
    with suppress(Error):
        checked_poll(conn)


def cancel_and_drain(conn: Any, exc: BaseException | None, drain: Callable[[], Steps]) -> None:
    """Cancel the command and take the steps of `drain`; the exception to raise is left pending.

    The connection is closed if that does not succeed within `cancel_timeout`.
    """
    state: State = conn._greenpg_state

    def recover(shield: Shield) -> None:
        cancel = Canceller(conn, shield)
        cancel()
        shield.take(drain(), state.wait, cancel, AGAIN)

    seconds = CLOSE_TIMEOUT if state.closing else state.cancel_timeout
    try:
        verdict, failure = state.bounded(exc, seconds, recover)
        if failure is not None:
            state.shut(conn)
        else:
            collect_notices(conn)
        state.note_interrupt(verdict)
    except BaseException:  # such as a full stack; this call needs less of it
        close(conn)
        raise
