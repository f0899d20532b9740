"""What the cancel requests of all drivers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .session import Session
    from .shield import Shield


def wait_once(backend: Backend, fd: int, events: int, timeout: float | None = None) -> int:
    """Wait with a waiter of its own for a descriptor that is not kept."""
    waiter = backend.waiter()
    try:
        return waiter.wait(fd, events, timeout)
    finally:
        waiter.close()


def cancel_in_thread(
    request: Callable[[], str | None], shield: Shield, error: type[Exception]
) -> None:
    """Call a request that blocks in an OS thread; `error` if it was not delivered."""
    backend = shield.backend
    done = backend.event()
    outcome: list[str | None] = []

    def job() -> None:
        try:
            outcome.append(backend.in_thread(request))
        finally:
            done.set()

    backend.spawn(job)
    shield.wait(done.wait)
    if outcome != [None]:
        raise error(f"cancel request not delivered: {outcome}")


def send_cancel(
    session: Session,
    seconds: float,
    send: Callable[[Shield], object],
    undelivered: Callable[[BaseException], Exception],
) -> None:
    """Await the request's end even when interrupted: cut short it might hit a later query.

    If it does not end in time the connection is closed.
    """
    verdict, failure = session.bounded(None, seconds, send)
    if failure is not None:
        session.close_soon()
        session.waiter.interrupt(session.closed_error())
        raise verdict or undelivered(failure) from failure
    if verdict is not None:
        raise verdict
