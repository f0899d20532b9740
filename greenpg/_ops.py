"""Steps of the protocol as generators: they yield what they wait for, and know no event loop.

A step yields (descriptor, READ|WRITE bits) and goes on when that is ready.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

from psycopg2 import OperationalError

from ._libpq import POLLING_FAILED, POLLING_OK, POLLING_READING, POLLING_WRITING, libpq
from .backend import READ, WRITE

__all__ = ["Steps", "can_cancel_stepwise", "cancel"]

Steps: TypeAlias = Generator[tuple[int, int], None, None]


def can_cancel_stepwise() -> bool:
    """Tell whether libpq can cancel without blocking (PostgreSQL 17 and later)."""
    return libpq.has("PQcancelCreate", "PQcancelStart", "PQcancelPoll", "PQcancelFinish")


def cancel(pgconn: int) -> Steps:
    """Ask the server to cancel what the connection runs; ends when the server has taken it.

    Raises OperationalError if the request cannot be delivered.
    """
    request = libpq.PQcancelCreate(pgconn)
    try:
        if not libpq.PQcancelStart(request):
            raise _refused(request)
        status = POLLING_WRITING
        while status != POLLING_OK:
            if status == POLLING_FAILED:
                raise _refused(request)
            wants = READ if status == POLLING_READING else WRITE
            yield libpq.PQcancelSocket(request), wants
            status = libpq.PQcancelPoll(request)
    finally:
        libpq.PQcancelFinish(request)


def _refused(request: int) -> OperationalError:
    text = libpq.PQcancelErrorMessage(request) or b""
    return OperationalError(f"cancel request not delivered: {text.decode(errors='replace')}")
