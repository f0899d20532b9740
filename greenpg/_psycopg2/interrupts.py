"""Interrupts in a wait inside C: the query is cancelled, its end awaited, the exception kept.

An exception that left the wait callback would make psycopg2 close the connection. So it is noted
as `state.pending`, the callback returns normally, and the operation raises it at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import extensions as ext

from greenpg._protocol.generators import end_copy
from greenpg._protocol.libpq import libpq
from greenpg._session.session import CANCEL_TIMEOUT
from greenpg.backend import READ, WRITE

from .cancel_request import Canceller
from .psycopg2_c import checked_poll, transaction_status

if TYPE_CHECKING:
    from greenpg._session.shield import Shield

    from .state import State

AGAIN: Final = 0.25  # seconds until a cancel request is repeated: it may have overtaken its query
log = logging.getLogger("greenpg")


def close_if_asked(conn: Any, state: State) -> None:
    """Close if another task has closed while this one waited outside C."""
    if state.closing:
        state.shut(conn)


def interrupted(conn: Any, state: State, exc: BaseException) -> None:
    """Bring the running command to its end and keep `exc` for the operation to raise.

    If that fails `exc` is raised here, upon which psycopg2 closes the connection.
    """

    def recover(shield: Shield) -> None:
        if exc is not state.pending:
            shield.note(exc)
        (_drain if state.finish_on_interrupt else _stop)(conn, state.fd, state.wait, shield)

    verdict, failure = state.bounded(state.pending, state.recovery_seconds(), recover)
    if failure is not None:
        state.waiter.close()
        state.pending = None
        raise verdict or exc from None
    if not state.finish_on_interrupt:
        _block_sending(conn, state)
    state.note_interrupt(verdict)  # last: a Ctrl-C before this line propagates itself


def stopped(conn: Any, state: State, exc: BaseException) -> BaseException:
    """Cancel and drain a connection that psycopg2 will close; return the exception to raise."""
    stop = partial(_stop, conn, conn.fileno(), state.waiter.wait)
    verdict, failure = state.bounded(exc, CANCEL_TIMEOUT, stop)
    if failure is not None:
        log.warning("a query could not be cancelled before its connection was closed")
    return verdict or exc


def stop_command(conn: Any, state: State, error: BaseException) -> None:
    """Cancel the running command and await its end; `error`, or an interrupt, is left pending.

    If the connection cannot be brought to rest it is raised, upon which psycopg2 closes it.
    """
    stop = partial(_stop, conn, state.fd, state.wait)
    verdict, failure = state.bounded(error, state.cancel_timeout, stop)
    if failure is not None:
        state.waiter.close()
        raise verdict or error from None
    state.note_interrupt(verdict)


def _stop(conn: Any, fd: int, wait: Callable[..., int], shield: Shield) -> None:
    """Cancel the running command and await its end.

    The server ignores a request that comes before the query, which travels apart from it.
    """
    cancel = Canceller(conn, shield)
    cancel()
    while not _drain(conn, fd, wait, shield, AGAIN):
        cancel()


def _drain(
    conn: Any, fd: int, wait: Callable[..., int], shield: Shield, pause: float = inf
) -> bool:
    """Read all that is left of the running command, so that psycopg2 adopts its result.

    Return False if nothing arrived for `pause` seconds.
    """
    while True:
        while (want := checked_poll(conn)) != ext.POLL_OK:
            events = READ if want == ext.POLL_READ else READ | WRITE
            if not shield.wait(partial(wait, fd, events), pause):
                return False
        if transaction_status(conn) != ext.TRANSACTION_STATUS_ACTIVE:
            return True
        shield.take(end_copy(conn.pgconn_ptr, fd), wait)
        shield.turn()


def _block_sending(conn: Any, state: State) -> None:
    """Keep psycopg2 from sending the operation's next command: after BEGIN, after a row.

    In pipeline mode libpq refuses psycopg2's PQexec and PQsendQuery ("not allowed in pipeline
    mode", libpq's manual, "Pipeline Mode"); `State.recover` leaves the mode.
    """
    if state.sending_blocked or not libpq.has("PQenterPipelineMode", "PQexitPipelineMode"):
        return
    state.note_blocked()  # first: where memory or stack ends, the mode must be known
    libpq.PQenterPipelineMode(conn.pgconn_ptr)
