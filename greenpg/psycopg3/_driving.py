"""Consumes psycopg's generators: waits through the backend, and recovers from interrupts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg import Error, ProgrammingError, pq

from greenpg._session.cancelling import wait_once
from greenpg._session.lock import IN_HUB

from ._cancelling import cancel_query
from ._errors import WaitTimeout
from ._finishing import drop_unsent, finish, under_way

if TYPE_CHECKING:
    from greenpg._session.shield import Shield
    from greenpg.backend import Backend

    from ._state import State

_T = TypeVar("_T")
ACTIVE: Final = pq.TransactionStatus.ACTIVE


def drive(
    conn: Any,
    gen: Generator[Any, Any, _T],
    interval: float | None = None,
    timeout: float | None = None,
) -> _T:
    """Consume a generator on an open connection; WaitTimeout after `timeout` seconds.

    If `interval` is given, the generator is resumed at least each `interval` seconds, as in
    psycopg: a program's own may look at something else then, and notifies() does before 3.3.6.
    An interrupt propagates once the query is cancelled and the generator has ended; if it does
    not end within the connection's `cancel_timeout`, the connection is closed.
    """
    state: State = conn._greenpg_state
    if not state.in_driver:  # the program calls it by itself, as psycopg's manual shows
        with conn.lock:
            return drive(conn, gen, interval, timeout)
    fd = conn.pgconn.socket  # raises psycopg's error if it is closed
    if state.pending is not None or state.recovery_end:  # psycopg's own clean-up
        return _drive_shielded(conn, state, gen)
    waited = False
    state.waiting_outside = True  # no other task may close
    try:
        want = next(gen)
        if state.holder != state.current() and not state.can_wait():  # a finalizer ends a block
            state.shut(conn.pgconn)
            raise ProgrammingError(IN_HUB)
        last = inf if timeout is None else monotonic() + timeout
        end = None if timeout is None else last
        wait = state.wait
        while True:
            if interval is not None:
                end = min(monotonic() + interval, last)
            try:
                if want and end is None and not state.wait_needs_check:
                    ready = wait(fd, want, None)
                else:
                    ready = state.wait_until(want, end)
            except BaseException as exc:
                _interrupted(conn, state, gen, want, exc)
            waited = True
            want = gen.send(ready)
            if timeout is not None and monotonic() >= last:
                raise WaitTimeout("wait timeout expired")
    except StopIteration as stop:
        value = stop.value
    except BaseException:
        with suppress(Exception):  # psycopg's own steps at the end of a pipeline cannot go on
            gen.close()
        raise
    finally:
        state.waiting_outside = False
    if not waited and state.time_slice.is_over():
        _pause(conn, state, gen)
    return value  # type: ignore[no-any-return]


def drive_connecting(backend: Backend, gen: Generator[Any, Any, _T], timeout: float | None) -> _T:
    """Consume a generator that yields its descriptor too, as connecting does."""
    end = None if timeout is None else monotonic() + timeout
    try:
        fd, want = next(gen)
        while True:
            left = None if end is None else max(end - monotonic(), 0)
            ready = wait_once(backend, fd, want, left)
            if not ready:
                raise WaitTimeout("wait timeout expired")
            fd, want = gen.send(ready)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except BaseException:
        gen.close()
        raise


def _pause(conn: Any, state: State, gen: Any) -> None:
    """Let other tasks run after a time slice of operations that did not wait."""
    try:
        state.check()
        state.time_slice.pause_if_over()
    except BaseException as exc:
        _interrupted(conn, state, gen, None, exc)


def _interrupted(conn: Any, state: State, gen: Any, want: Any, exc: BaseException) -> None:
    """Bring the operation to its end and raise `exc`, or what came meanwhile."""
    pgconn, pipeline = conn.pgconn, conn._pipeline
    state.note_interrupt(exc)
    if pipeline and state.current() not in state.cleaners:  # at its end it is over anyway
        state.pipeline_cut = True
    running = (want is not None or pipeline) and pgconn.transaction_status == ACTIVE

    def recover(shield: Shield) -> None:
        if running and not state.finish_on_interrupt:
            cancel_query(state, pgconn, shield)
        if pipeline:
            drop_unsent(conn)
        if want is not None and (running or pipeline):
            with suppress(Error):  # that of the cancelled query
                finish(state, pgconn, gen, want, shield)
        if pipeline:  # the cancel may have overtaken what libpq still had to send
            with suppress(Error):
                finish(state, pgconn, under_way(pipeline), None, shield)

    state.stopping = not state.finish_on_interrupt
    try:
        verdict, failure = state.bounded(exc, state.patience(), recover)
    finally:
        state.stopping = False
    if failure is not None:
        state.shut(pgconn)
    elif pipeline:
        conn._prepared.clear()  # of what was not sent it may know more than the server
    state.note_interrupt(verdict)
    assert verdict is not None
    raise verdict


def _drive_shielded(conn: Any, state: State, gen: Generator[Any, Any, _T]) -> _T:
    """Consume a generator of psycopg's clean-up; interrupts are weighed, not raised."""
    outcome: list[Any] = []
    want = None
    try:
        want = next(gen)
    except StopIteration as stop:
        if not state.time_slice.is_over():
            return stop.value  # type: ignore[no-any-return]
        outcome.append(stop.value)

    def rest(_: float) -> bool:
        state.time_slice.pause_if_over()
        return True

    def run(shield: Shield) -> None:
        if not outcome:
            outcome.append(finish(state, conn.pgconn, gen, want, shield))
        shield.wait(rest)  # Unrecovered if the server sends on and on

    state.waiting_outside = True
    try:
        verdict, failure = state.bounded(state.pending, state.patience(), run)
    finally:
        state.waiting_outside = False
    if verdict is not None:
        state.note_interrupt(verdict)
    if isinstance(failure, Error):
        raise failure
    if failure is not None:
        state.shut(conn.pgconn)
        raise verdict or state.closed_error()
    return outcome[0]  # type: ignore[no-any-return]
