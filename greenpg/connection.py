"""The green connection: psycopg2's, sharable by tasks, with every entry into C guarded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from psycopg2 import Error, ProgrammingError
from psycopg2 import extensions as ext
from psycopg2._psycopg import connection as c_connection
from psycopg2._psycopg import lobject as c_lobject

from ._green_classes import green, green_class
from ._notifications import Notifications
from ._psycopg2 import cancel as _cancel
from ._psycopg2.attach import LazyState
from ._psycopg2.attempt import Attempt, addresses
from ._psycopg2.conninfo import CONNINFO, GivenInfo
from ._psycopg2.hang_up import hang_up
from ._psycopg2.operation import guarded
from ._psycopg2.psycopg2_c import checked_poll
from ._psycopg2.state import ERRORS
from ._psycopg2.wait_callback import wait_callback
from ._session.closing import close_after
from ._session.connect_plan import plan
from ._session.shield import graver
from .backend import has_ended
from .cursor import Cursor, NamedCursor
from .lobject import Lobject
from .pipeline import Pipeline
from .sync import ConnectionLock, Deadline

if TYPE_CHECKING:
    from ._psycopg2.state import State

__all__ = ["Connection"]

_T = TypeVar("_T")
_cursor = c_connection.cursor
_lobject: Any = c_connection.lobject
_c_notifies: Final[Any] = c_connection.notifies
_c_factory: Final[Any] = c_connection.cursor_factory
_c_dsn: Final[Any] = c_connection.dsn
_c_info: Final[Any] = c_connection.info


class _Setting:
    """A transaction setting of psycopg2's connection, whose change may run a statement."""

    def __init__(self, name: str) -> None:
        self._c: Any = getattr(c_connection, name)
        self.__doc__ = self._c.__doc__

    def __get__(self, conn: Any, owner: type) -> Any:
        return self if conn is None else self._c.__get__(conn)

    def __set__(self, conn: Connection, value: Any) -> None:
        conn._greenpg_run(self._c.__set__, value)


@green(c_connection)
class Connection(c_connection):
    """psycopg2's connection, whose waits are green and which tasks may share.

    Each operation has the connection to itself; other tasks wait in order. An interrupt
    propagates from the operation unchanged, with the query cancelled and the connection usable:
    at once under autocommit, after a rollback inside a transaction.
    """

    _greenpg_state: Any = LazyState()
    _greenpg_state_made: State
    _greenpg_guard: Any

    autocommit = _Setting("autocommit")
    isolation_level = _Setting("isolation_level")
    readonly = _Setting("readonly")
    deferrable = _Setting("deferrable")

    def __init__(self, dsn: str, *args: Any, **kwargs: Any) -> None:
        """Connect; for a class that is called itself libpq tries the hosts, in one attempt."""
        super().__init__(planned(self, dsn), *args, **kwargs)

    def _greenpg_run(
        self, method: Callable[..., _T], *args: Any, finish_on_interrupt: bool = True
    ) -> _T:
        """Enter C under the lock; an operation may be allowed to finish when interrupted."""
        self._greenpg_state.time_slice.count_call()  # a loop of calls that need not wait
        return guarded(
            self, method, self, *args, finish_on_interrupt=finish_on_interrupt, failed=_failed
        )

    @overload  # type: ignore[override]  # by its name a cursor is of a class that psycopg2 lacks
    def cursor(
        self,
        name: str | bytes,
        cursor_factory: None = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> NamedCursor: ...
    @overload
    def cursor(
        self,
        name: str | bytes | None = None,
        cursor_factory: None = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Cursor: ...
    @overload
    def cursor(
        self,
        name: str | bytes | None = None,
        *,
        cursor_factory: Callable[..., _T],
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> _T: ...
    @overload
    def cursor(
        self,
        name: str | bytes | None,
        cursor_factory: Callable[..., _T],
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> _T: ...
    def cursor(
        self,
        name: Any = None,
        cursor_factory: Any = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Any:
        """Return a new cursor; a factory that is a class gets the green cursor under it."""
        factory = cursor_factory or _c_factory.__get__(self) or Cursor
        if factory is not Cursor:
            factory = green_class(factory)
        return _cursor(self, name, factory, withhold, scrollable)

    @overload
    def lobject(
        self,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
        lobject_factory: None = None,
    ) -> Lobject: ...
    @overload
    def lobject(
        self,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
        lobject_factory: Callable[..., _T] = ...,
    ) -> _T: ...
    def lobject(
        self,
        oid: int = 0,
        mode: str | None = "",
        new_oid: int = 0,
        new_file: str | None = None,
        lobject_factory: Callable[..., Any] | None = None,
    ) -> Any:
        """Open a large object, or create one; psycopg2's semantics.

        It is valid until the end of the transaction. A factory that is a class gets the green
        class under it.
        """
        file = () if new_file is None else (new_file,)
        if self.closed or self.async_ or ext.get_wait_callback() is not wait_callback:
            return _lobject(self, oid, mode, new_oid, new_file, lobject_factory or c_lobject)
        factory = green_class(lobject_factory or Lobject)
        made = factory(self, oid, mode, new_oid, *file)
        if not isinstance(made, c_lobject):
            raise TypeError("lobject factory must be subclass of psycopg2.extensions.lobject")
        return made

    def commit(self) -> None:
        """Commit the transaction; interrupted, it may have been committed or not."""
        self._greenpg_run(c_connection.commit, finish_on_interrupt=False)

    def rollback(self) -> None:
        """Roll back; in the event loop's own greenlet the connection is closed instead."""
        if not self._greenpg_abandoned_in_hub():
            self._greenpg_run(c_connection.rollback)

    def reset(self) -> None:
        """Bring the session back to its defaults; in the hub the connection is closed."""
        if not self._greenpg_abandoned_in_hub():
            self._greenpg_run(c_connection.reset)

    def close(self) -> None:
        """Close the connection; a task that waits on it gets InterfaceError.

        Its query is cancelled first, for which it has a second. The session of a task that does
        not leave its block is ended a second later. In the hub this returns at once, and the
        waiting task closes.
        """
        state = self._greenpg_state
        if state.holder_lost:
            return  # psycopg2's mutex is held for good; the dead socket ends with the process
        if state.is_ending():
            state.abandon(self)
            return
        if state.block_paused is not None and state.resume_block(id(self)):
            _cancel.cancel_block(self)
            state.shut(self)
            return
        if not (state.in_driver or state.waiting_outside):
            state.shut(self)
            return
        if state.holder == state.current():
            raise ProgrammingError("the connection is inside an operation of this very task")
        state.close_soon()
        state.waiter.interrupt(state.closed_error())
        if has_ended(state.holder):
            hang_up(self)
        elif state.can_wait():
            close_after(state, self, partial(state.shut, self), partial(hang_up, self))

    def _greenpg_abandoned_in_hub(self) -> bool:
        """Close instead of waiting, in the hub, if no task uses the connection."""
        state = self._greenpg_state
        if state.in_driver or state.waiting_outside or state.can_wait() or self.closed:
            return False
        state.shut(self)
        return True

    def cancel(self) -> None:
        """Cancel what another task runs on this connection; never what it runs next.

        Returns when the server has taken the request. If it does not within the connection's
        `cancel_timeout` (5 seconds), the connection is closed: OperationalError.
        """
        _cancel.cancel(self)

    def poll(self) -> int:
        """Advance an asynchronous connection, or fetch notifications; psycopg2's POLL_*.

        Inside a wait callback it goes straight to libpq; another task's query is waited for.
        """
        state = self._greenpg_state
        waits = state.can_wait() if not state.in_driver else state.holder != state.current()
        if self.async_ or not waits:
            return checked_poll(self)
        return self._greenpg_run(checked_poll)

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        """Commit, or roll back after an exception, unless that has closed the connection."""
        if kind is None or not self.closed:
            c_connection.__exit__(self, kind, exc, trace)

    def set_client_encoding(self, encoding: str) -> None:
        """Set the client encoding, ending the open transaction."""
        self._greenpg_run(c_connection.set_client_encoding, encoding)

    def set_isolation_level(self, level: int | None) -> None:
        """Set the isolation level, ending the open transaction."""
        self._greenpg_run(c_connection.set_isolation_level, level)

    def set_session(
        self,
        isolation_level: Any = None,
        readonly: Any = None,
        deferrable: Any = None,
        autocommit: Any = None,
    ) -> None:
        """Set the next transactions' characteristics."""
        self._greenpg_run(
            c_connection.set_session, isolation_level, readonly, deferrable, autocommit
        )

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction."""
        self._greenpg_run(c_connection.tpc_begin, xid, finish_on_interrupt=False)

    def tpc_prepare(self) -> None:
        """Prepare the two-phase transaction; interrupted, it may have been prepared."""
        self._greenpg_run(c_connection.tpc_prepare, finish_on_interrupt=False)

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a two-phase transaction; interrupted, it may have been committed."""
        try:
            self._greenpg_run(c_connection.tpc_commit, *xid, finish_on_interrupt=False)
        except BaseException as first:
            if not xid and not self.closed and self.status == ext.STATUS_READY:
                raise self._greenpg_tidied(
                    first, lambda: self._greenpg_run(_forget_xid)
                ) from first.__cause__
            raise

    def tpc_rollback(self, *xid: Any) -> None:
        """Roll back a two-phase transaction."""
        self._greenpg_run(c_connection.tpc_rollback, *xid)

    def tpc_recover(self) -> list[ext.Xid]:
        """Return the ids of transactions that are prepared on the server."""
        with ConnectionLock(self):
            began = self.status == ext.STATUS_READY
            if began:  # C would roll back past our guard what its own query began
                Cursor(self).execute("SELECT 1")
                began = self.status == ext.STATUS_BEGIN
            try:
                xids: list[ext.Xid] = self._greenpg_run(
                    c_connection.tpc_recover, finish_on_interrupt=False
                )
            except BaseException as first:
                if began and not self.closed:
                    undo = partial(Connection.rollback, self)
                    raise self._greenpg_tidied(first, undo) from first.__cause__
                raise
            if began:
                Connection.rollback(self)
        return xids

    def _greenpg_tidied(self, first: BaseException, tidy: Callable[[], object]) -> BaseException:
        """Call `tidy` after a failed operation; return the exception that the operation raises."""
        try:
            tidy()
        except Error:
            return first
        except BaseException as later:
            return graver(self._greenpg_state.backend, ERRORS, first, later)
        return first

    @property
    def notifies(self) -> Any:
        """The list of notifications; any object with `append` may take its place.

        psycopg2 calls `append` with the connection locked, so an object that is not a list or
        deque gets its notifications after the operation.
        """
        collector = self._greenpg_state.collector
        return _c_notifies.__get__(self) if collector is None else collector

    @notifies.setter
    def notifies(self, collector: Any) -> None:
        state = self._greenpg_state
        plain = collector is None or type(collector) in (list, deque)
        state.set_collector(None if plain else collector)
        _c_notifies.__set__(self, collector if plain else state.inbox)

    @property
    def dsn(self) -> str:
        """The connection string that the user gave, without its password."""
        plan = self._greenpg_state.plan
        return str(_c_dsn.__get__(self) if plan is None else plan.public_dsn())

    @property
    def info(self) -> ext.ConnectionInfo:
        """What libpq knows of the connection, with the parameters as the user gave them."""
        plain = self._greenpg_state.plan is None
        info: ext.ConnectionInfo = _c_info.__get__(self) if plain else GivenInfo(self)
        return info

    def get_dsn_parameters(self) -> dict[str, str]:
        """Return the parameters of the connection, without its password."""
        return self.info.dsn_parameters

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} object at {id(self):#x}; dsn: {self.dsn!r}, "
            f"closed: {self.closed}>"
        )

    __str__ = __repr__  # C's shows the string that was used

    def pipeline(self) -> Pipeline:
        """Queue statements in a with block and read their results when wanted; see `Pipeline`."""
        return Pipeline(self)

    def exclusive(self) -> ConnectionLock:
        """Keep the connection for this task through a with block; re-entrant."""
        return ConnectionLock(self)

    def deadline(self, seconds: float) -> Deadline:
        """Limit this task's operations in a with block; later they raise DeadlineExceeded.

        The query is cancelled and the connection stays usable: at once under autocommit,
        after a rollback inside a transaction. The nearest of nested deadlines counts.
        """
        return Deadline(self, seconds)

    def listen(self, *channels: str, timeout: float | None = None) -> Notifications:
        """LISTEN, and iterate over what arrives on the channels; it costs nothing while idle.

        Channels are spelled as the server stores them (`LISTEN Orders` means "orders"). The
        iteration keeps the connection, which its task may use meanwhile, and ends after `timeout`
        seconds without a notification. At its end come UNLISTEN, of what the session did not
        listen to before, and the other tasks' turn.
        """
        return Notifications(self, channels, timeout)


def planned(conn: Any, dsn: str) -> str:
    """Return the DSN of a connection that `connect` does not make, with its names resolved."""
    state = conn._greenpg_state
    if state.attempt is not None:
        return dsn
    try:
        targets = plan(dsn, CONNINFO)
    except ProgrammingError:
        return dsn  # C refuses it in its own way
    state.attempt = Attempt(targets.timeout)
    if targets.simple:
        return dsn
    state.plan = targets
    return targets.combined(partial(addresses, state.backend))


def _failed(state: State, error: BaseException) -> None:
    state.note_failure()


def _forget_xid(conn: Connection) -> None:
    """Make psycopg2 drop the xid that it keeps when COMMIT fails, and refuses all else for."""
    try:
        c_connection.rollback(conn)  # sends nothing
    except ProgrammingError:
        c_connection.tpc_begin(conn, "greenpg")
        c_connection.tpc_rollback(conn)
