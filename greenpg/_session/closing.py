"""`close()` of a connection that another task uses."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenpg.backend import has_ended

from .session import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from .session import Session

_AGAIN: Final = 0.02  # seconds until it is interrupted again: it may have been only about to wait


def close_after(
    session: Session, conn: Any, shut: Callable[[], object], hang_up: Callable[[], object]
) -> None:
    """Close once the other task is out of the driver, unless it has closed; it may keep the lock.

    `hang_up` ends the session without the driver, if the task does not leave its block.
    """
    end = monotonic() + 2 * CLOSE_TIMEOUT
    while not conn.closed:
        if has_ended(session.holder) or monotonic() >= end:  # it runs its own code in a block
            hang_up()
            return
        if session.is_in_other_thread():  # where the operation's end closes; no queue here
            session.backend.sleep(_AGAIN)
            session.waiter.interrupt(session.closed_error())
            continue
        try:
            session.acquire(session.current(), _AGAIN, first=True)
        except session.errors.deadline_exceeded:  # a thread may have been only about to wait
            session.waiter.interrupt(session.closed_error())
            continue
        try:
            shut()
        finally:
            session.depth -= 1
            session.let_go()
