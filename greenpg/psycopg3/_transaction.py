"""The blocks of a connection: `transaction()` and `pipeline()`, which end whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import transaction as _transaction

from greenpg.sync import ConnectionLock

from ._state import is_interrupt

if TYPE_CHECKING:
    from ._state import State


UNEXPECTED: Final = "the server's answer does not follow the protocol"


class Transaction(_transaction.Transaction):
    """psycopg.Transaction, which commits nothing after an interrupt."""

    __module__ = "psycopg"
    _conn: Any  # a green one

    def __enter__(self) -> Any:
        try:
            return super().__enter__()
        except BaseException as error:
            if self._greenpg_is_active():  # it had begun
                self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> bool:
        state: State = self._conn._greenpg_state
        try:
            with state.ending(self.pgconn, exc) as interrupt:
                exc = interrupt if exc is None else exc
                if exc is None:
                    if self._conn.broken:
                        raise state.closed_error()
                    state.refuse_if_closed_by_another()
                with state.cleaning_up(exc is not None or self.force_rollback):
                    return super().__exit__(kind or type(exc), exc, trace)
        finally:
            if self._greenpg_is_active():  # its end could not begin
                self._pop_savepoint("rollback")
                self._greenpg_fail()
                state.note_outside(self._conn)

    if hasattr(_transaction.Transaction, "Status"):

        def _greenpg_is_active(self) -> bool:
            return self.status is self.Status.ACTIVE

        def _greenpg_fail(self) -> None:
            self.status = self.Status.FAILED

    else:  # psycopg before 3.3

        def _greenpg_is_active(self) -> bool:
            return self._entered and not self._exited  # type: ignore[attr-defined]

        def _greenpg_fail(self) -> None:
            self._exited = True

    def _pop_savepoint(self, action: str) -> Exception | None:
        pushed = self._stack_index >= 0  # not if a signal handler raised before
        return super()._pop_savepoint(action) if pushed else None

    def _commit_gen(self) -> Any:
        state: State = self._conn._greenpg_state
        if state.must_roll_back:
            refusal = state.failed_transaction()
            state.finish_on_interrupt = True
            yield from self._rollback_gen(refusal)
            raise refusal
        yield from super()._commit_gen()


class Pipeline(psycopg.Pipeline):
    """psycopg.Pipeline, of which an interrupt cancels what runs."""

    __module__ = "psycopg"
    _conn: Any  # a green one
    _greenpg_outer: BaseException | None = None

    def __enter__(self) -> Any:
        level = inf
        try:
            with ConnectionLock(self._conn):
                level = self.level
                super().__enter__()
                self._conn._pipeline = self
        except BaseException as error:
            if level == self.level < self.pgconn.pipeline_status:  # libpq has entered its mode
                self.level += 1
            if level < self.level:
                self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        state: State = self._conn._greenpg_state
        level = None
        try:
            self._greenpg_outer = sys.exc_info()[1]
            with state.ending(self.pgconn, exc) as interrupt:
                level, exc = self.level, interrupt if exc is None else exc
                refused = exc is None and state.must_roll_back
                state.pipeline_cut = False
                with state.cleaning_up(is_interrupt(exc)):  # which has cancelled what ran
                    super().__exit__(kind, exc, trace)
                if refused:
                    raise state.failed_transaction()
        finally:
            self.level = (self.level if level is None else level) - 1
            if not self.level:  # no call before it is forgotten: a signal handler may raise there
                self._conn._pipeline = None
                if self.pgconn.pipeline_status:  # libpq cannot leave its mode
                    state.give_up(self.pgconn)

    def _exit(self, exc: BaseException | None) -> None:
        """Leave pipeline mode; an error in that replaces nothing that the block's end raises."""
        raised = sys.exc_info()[1]
        super()._exit(exc or (None if raised is self._greenpg_outer else raised))

    def _communicate_gen(self) -> Any:
        self._conn._greenpg_state.refuse_if_stopping()  # executemany's next row
        try:
            yield from super()._communicate_gen()
        except IndexError as error:
            if self.result_queue:
                raise
            raise psycopg.OperationalError(UNEXPECTED) from error  # more results than statements


@contextmanager
def transaction(conn: Any, savepoint_name: str | None, force: bool) -> Iterator[Transaction]:
    """Give a transaction, in a pipeline between two synchronisations, as psycopg does."""
    block = Transaction(conn, savepoint_name, force)
    if conn._pipeline:
        with conn.pipeline(), block, conn.pipeline():
            yield block
    else:
        with block:
            yield block
