"""The green connection: psycopg 3's, sharable by tasks, with its waits made by a backend."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import RowFactory, tuple_row

from greenpg._checks import check_seconds
from greenpg._connecting.default_backend import default_backend
from greenpg._green_classes import green, green_class
from greenpg._session.forks import Watched, watched
from greenpg._session.lock import REENTERED
from greenpg._session.waiter_closer import WaiterCloser
from greenpg.backend import Backend, as_backend, current
from greenpg.sync import ConnectionLock, Deadline

from ._cancelling import cancel
from ._closing import close_for_another
from ._connect import connect_in_turn
from ._driving import drive
from ._state import IDLE, INERROR, OperationLock, State
from ._statements import is_close
from ._transaction import Pipeline, transaction

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager

    from typing_extensions import Self

logger = logging.getLogger("psycopg")
_OWN: Final = ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory")


@green(psycopg.Connection)
class Connection(psycopg.Connection[Any]):
    """psycopg.Connection, whose waits are green and which tasks may share.

    Each operation has the connection to itself; other tasks wait in order. An interrupt
    propagates from the operation unchanged, with the query cancelled and the connection usable:
    at once under autocommit, after a rollback inside a transaction.
    """

    _greenpg_state: State

    def __init__(self, pgconn: Any, row_factory: RowFactory[Any] = tuple_row) -> None:
        try:
            super().__init__(pgconn, row_factory)
            self._greenpg_attach(current())
        except BaseException:
            pgconn.finish()
            raise

    def _greenpg_attach(self, backend: Backend) -> None:
        self._greenpg_state = state = State(backend)
        self._greenpg_guard = WaiterCloser((state.waiter,))
        state.fd = self.pgconn.socket
        state.refresh_flags()
        self.lock: Any = OperationLock(state, self.pgconn)
        watched.add(Watched(self, watched.discard))

    @classmethod
    def connect(  # type: ignore[override]  # it takes a backend too
        cls, conninfo: str = "", *, backend: str | Backend | None = None, **options: Any
    ) -> Self:
        """Connect as psycopg.Connection.connect does, with every wait made by a backend.

        Without `backend` it is the default one (see `greenpg.use`). An interrupt of the attempt
        propagates unchanged and leaves neither socket nor server session.
        """
        found = default_backend("patch_psycopg3", 3) if backend is None else as_backend(backend)
        own = {name: options.pop(name) for name in _OWN if name in options}
        params = cls._get_connection_params(conninfo, **options)
        conn: Self | None = None
        try:
            conn = connect_in_turn(cls, found, params)
            if found is not conn._greenpg_state.backend:
                conn._greenpg_attach(found)
            _configure(conn, **own)
            return conn
        except BaseException as exc:
            clear_frames(exc.__traceback__)  # of psycopg, which may have had a connection
            if conn is not None:
                conn.close()
            raise

    wait = drive

    def _exec_command(self, command: Any, *args: Any, **options: Any) -> Any:
        state = self._greenpg_state
        if state.stopping or (state.must_roll_back and not is_close(command)):
            state.admit(command)
        return super()._exec_command(command, *args, **options)

    @overload
    def cursor(self, name: Literal[""] = "", **options: Any) -> psycopg.Cursor[Any]: ...
    @overload
    def cursor(self, name: str, **options: Any) -> psycopg.ServerCursor[Any]: ...
    def cursor(  # type: ignore[misc]  # its overloads take any options
        self,
        name: str = "",
        *,
        binary: bool = False,
        row_factory: Any = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Any:
        """Return a new cursor; a factory that is a class gets the green cursor under it."""
        self._check_connection_ok()
        options: dict[str, Any] = {"row_factory": row_factory or self.row_factory}
        factory: Any = self.cursor_factory
        if name:
            factory = self.server_cursor_factory
            options |= {"name": name, "scrollable": scrollable, "withhold": withhold}
        cur = green_class(factory)(self, **options)
        if binary:
            cur.format = psycopg.pq.Format.BINARY
        return cur

    def _start_query(self) -> Any:
        state = self._greenpg_state
        if state.must_roll_back:  # BaseCursor._start_query(query) calls (psycopg, _cursor_base.py)
            state.admit(sys._getframe(1).f_locals.get("query"))
        gen = super()._start_query()
        if self._prepared._to_flush or not (self._autocommit or self.pgconn.transaction_status):
            return self._greenpg_begun(gen)
        return gen

    def _greenpg_begun(self, gen: Any) -> Any:
        """Begin, and flush prepared statements before more are made.

        An interrupt leaves them, and DEALLOCATE ALL would hit the new ones too.
        """
        yield from self._prepared.maintain_gen(self)
        yield from gen
        self._greenpg_state.refuse_if_stopping()  # the statement after BEGIN

    def rollback(self) -> None:
        """Roll back; interrupted, it is finished first. In the hub the connection is closed."""
        state = self._greenpg_state
        if not (state.in_driver or state.can_wait()):
            state.shut(self.pgconn)
            return
        with state.cleaning_up():
            super().rollback()

    def _tpc_begin_gen(self, xid: Any) -> Any:
        return self._greenpg_two_phase(super()._tpc_begin_gen(xid))

    def _tpc_prepare_gen(self) -> Any:
        return self._greenpg_two_phase(self._greenpg_prepare(super()._tpc_prepare_gen()))

    def _tpc_finish_gen(self, action: Any, xid: Any) -> Any:
        if action == "COMMIT":
            self._greenpg_state.admit(None)
        return self._greenpg_two_phase(self._greenpg_finish(super()._tpc_finish_gen(action, xid)))

    def _greenpg_two_phase(self, gen: Any) -> Any:
        """Note after the steps of a two-phase command what psycopg takes to be open."""
        try:
            return (yield from gen)
        finally:
            self._greenpg_state.two_phase = self._tpc is not None and not self._tpc[1]

    def _greenpg_prepare(self, gen: Any) -> Any:
        """Let a PREPARE that has failed be followed by `tpc_rollback()`, and nothing else."""
        before = self._tpc
        if self.pgconn.transaction_status == INERROR:  # the server would roll back without an error
            raise psycopg.errors.InFailedSqlTransaction("the transaction has failed; roll back")
        try:
            return (yield from gen)
        except BaseException as error:
            failed = isinstance(error, psycopg.Error) or self.pgconn.transaction_status != IDLE
            if failed and before and not before[1]:
                self._tpc = before
                self._greenpg_state.doom()
            raise

    def _greenpg_finish(self, gen: Any) -> Any:
        """End a transaction that the server no longer has, as where an error came after its end.

        psycopg would refuse all but `close()` for ever.
        """
        try:
            return (yield from gen)
        except psycopg.errors.UndefinedObject:
            self._tpc = None
            raise

    def tpc_rollback(self, xid: Any = None) -> None:
        """Roll back a two-phase transaction; interrupted, it is finished first."""
        with self._greenpg_state.cleaning_up():
            super().tpc_rollback(xid)

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Switch to pipeline mode in a block; an interrupt in it cancels what runs."""
        with ExitStack() as stack:
            with ConnectionLock(self):
                self._check_connection_ok()
                pipeline = stack.enter_context(self._pipeline or Pipeline(self))
            yield pipeline

    @contextmanager
    def _pipeline_nolock(self) -> Iterator[Any]:
        """Switch to pipeline mode in an operation: executemany's."""
        with Pipeline(self, _no_lock=True) as pipeline:
            yield pipeline

    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> _GeneratorContextManager[psycopg.Transaction]:
        """Return a context block with a new transaction or nested transaction.

        If an interrupt was swallowed in it, it rolls back and raises InFailedSqlTransaction.
        """
        return transaction(self, savepoint_name, force_rollback)

    def cancel(self) -> None:
        """Cancel what another task runs on this connection; never what it runs next."""
        if self._should_cancel():
            cancel(self, None)

    def _should_cancel(self) -> bool:
        if self._greenpg_state.in_driver:  # such as a PREPARE, which psycopg takes to be done
            return not self.closed
        return super()._should_cancel()

    def _try_cancel(self, *, timeout: float = 5.0) -> None:
        """Cancel at an operation's end; an interrupt is raised after it."""
        state = self._greenpg_state
        if not state.can_wait():  # a stream or COPY that ends in a finalizer
            state.shut(self.pgconn)
        try:
            if self._should_cancel():
                cancel(self, min(timeout, state.patience()))
        except psycopg.Error as error:
            logger.warning("query cancellation failed: %s", error)
        except BaseException as exc:
            state.note_interrupt(exc)

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Cancel as `cancel` does; CancellationTimeout after `timeout` seconds."""
        check_seconds("timeout", timeout, none=True)
        if self._should_cancel():
            cancel(self, timeout)

    def close(self) -> None:
        """Close the connection; a task that waits on it gets OperationalError."""
        state = self._greenpg_state
        pool = getattr(self, "_pool", None)
        if not self._closed:
            state.closer = state.current()
        if self.closed and not state.in_driver:
            state.shut(self.pgconn)  # psycopg does nothing, and the waiter would keep its socket
        elif self.closed or state.holder_lost or getattr(pool, "close_returns", False):
            super().close()
            if self.closed and not state.waiting_outside:  # lost: its descriptor is still watched
                state.waiter.close()
        elif not (state.in_driver and state.waiting_outside):
            super().close()
            state.waiter.close()
        elif state.holder == state.current():
            raise psycopg.ProgrammingError(REENTERED)
        else:
            self._closed = True
            state.close_soon()
            state.waiter.interrupt(state.closed_error())
            if state.can_wait():
                close_for_another(self, state)

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        """Commit and close, or roll back and close; after a swallowed interrupt it rolls back."""
        state = self._greenpg_state
        if exc is None:
            state.refuse_if_closed_by_another()
        if exc is None and not self._closed and state.must_roll_back:
            refusal = state.closed_error() if self.closed else state.failed_transaction()
            super().__exit__(type(refusal), refusal, None)
            raise refusal
        try:
            super().__exit__(kind, exc, trace)
        except BaseException:  # a failed commit, an interrupt: psycopg does not close then
            if getattr(self, "_pool", None) is None:
                self.close()
            raise

    def exclusive(self) -> ConnectionLock:
        """Keep the connection for this task through a with block; re-entrant."""
        return ConnectionLock(self)

    def deadline(self, seconds: float) -> Deadline:
        """Limit this task's operations in a with block; later they raise DeadlineExceeded."""
        return Deadline(self, seconds)


connect = Connection.connect


def _configure(
    conn: Any,
    autocommit: bool = False,
    prepare_threshold: int | None = 5,
    context: Any = None,
    row_factory: Any = None,
    cursor_factory: Any = None,
) -> None:
    """Set what psycopg.Connection.connect sets on a new connection."""
    conn._autocommit = bool(autocommit)
    conn.prepare_threshold = prepare_threshold
    if row_factory:
        conn.row_factory = row_factory
    if cursor_factory:
        conn.cursor_factory = cursor_factory
    if context:
        conn._adapters = AdaptersMap(context.adapters)
