"""Brings what an interrupt has left behind to its end, under a shield."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from psycopg import Error, Pipeline, generators, pq

from greenpg._session.shield import Unrecovered

from ._cancelling import cancel_query
from ._statements import is_rollback

if TYPE_CHECKING:
    from greenpg._session.session import Session
    from greenpg._session.shield import Shield

ACTIVE: Final = pq.TransactionStatus.ACTIVE
COPY_IN: Final = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH)
COPY_OUT: Final = pq.ExecStatus.COPY_OUT
AGAIN: Final = 0.25  # seconds until a cancel request is repeated: it may have overtaken its query
TURNS: Final = 10  # results of a command; libpq makes new ones forever while a COPY goes on


def finish(state: Session, pgconn: Any, gen: Any, want: Any, shield: Shield) -> Any:
    """Drive a generator to its end, and return its value or raise its error.

    `want` is what it waits for, None before it begins.
    """
    try:
        while True:
            while not want:  # others need no turn now
                want = gen.send(want)
            found: list[int] = []
            step = partial(_wait_into, found, state, want)
            if shield.wait(step, inf if state.finish_on_interrupt else AGAIN):
                want = gen.send(found[0])
            else:
                cancel_query(state, pgconn, shield)
    except StopIteration as stop:
        return stop.value


def drop_unsent(conn: Any) -> None:
    """Take out of a pipeline what was not sent, but for synchronisations and rollbacks."""
    pipeline = conn._pipeline
    unsent = list(pipeline.command_queue)
    kept = [command for command in unsent if _is_needed(conn.pgconn, command)]
    for _ in unsent:
        pipeline.result_queue.pop()
    pipeline.command_queue.clear()  # in place: psycopg's generator has it
    pipeline.command_queue.extend(kept)
    pipeline.result_queue.extend([None] * len(kept))


def under_way(pipeline: Any) -> Generator[Any, Any, None]:
    """Send what `drop_unsent` has kept, and take the results of all that was sent."""
    yield from Pipeline._communicate_gen(pipeline)
    yield from pipeline._fetch_gen(flush=True)


def _is_needed(pgconn: Any, command: Any) -> bool:
    return command == pgconn.pipeline_sync or is_rollback(next(iter(command.args), None))


def finish_command(state: Session, pgconn: Any, shield: Shield) -> None:
    """Cancel and read what still runs when an operation ends, such as a COPY just begun."""
    cancel_query(state, pgconn, shield)
    finish(state, pgconn, _drain(pgconn), None, shield)


def _drain(pgconn: Any) -> Generator[Any, Any, None]:
    yield from generators.send(pgconn)  # the server may await the rest of the command
    for _ in range(TURNS):
        if pgconn.transaction_status != ACTIVE:
            return
        results = yield from generators.fetch_many(pgconn)
        status = results[-1].status if results else None
        with suppress(Error):  # that of the cancelled command
            if status in COPY_IN:
                yield from generators.copy_end(pgconn, b"interrupted")
            elif status == COPY_OUT:
                while isinstance((yield from generators.copy_from(pgconn)), memoryview):
                    pass
    raise Unrecovered


def _wait_into(found: list[int], state: Session, want: int, left: float) -> bool:
    ready = state.wait(state.fd, want, left)
    if ready:
        found.append(ready)
    return bool(ready)
