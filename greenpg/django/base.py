"""The module in which Django looks for the backend `greenpg.django`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base as postgresql
from django.db.backends.postgresql import creation
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from django.utils.asyncio import async_unsafe

from greenpg.backend import Backend, as_backend, current
from greenpg.sync import Deadline

from ._driver import Database, as_green
from ._loan import Loan, end_forgotten
from ._pools import close_all, pool_of, without_pool

if TYPE_CHECKING:
    from greenpg.pool import ConnectionPool

__all__ = ["DatabaseWrapper"]


class DatabaseCreation(creation.DatabaseCreation):  # type: ignore[misc]  # Django has no types
    """Makes and drops test databases; closes the pools that would be in the way."""

    def _create_test_db(self, *args: Any, **kwargs: Any) -> Any:
        self.connection.close()
        self.connection.close_pool()  # it may be the template, which must have no sessions
        return super()._create_test_db(*args, **kwargs)


class DatabaseWrapper(postgresql.DatabaseWrapper):  # type: ignore[misc]  # Django has no types
    """Django's PostgreSQL wrapper, with greenpg's connections and pool."""

    Database = Database
    creation_class = DatabaseCreation
    _loan: Loan | None = None
    _task: tuple[Backend, int] | None = None  # who connected; a hash, so that it can be freed
    _connecting = False

    @property
    def _pooled(self) -> bool:
        return self.alias != NO_DB_ALIAS and bool(self.settings_dict["OPTIONS"].get("pool"))

    @property
    def pool(self) -> ConnectionPool | None:
        """This process's pool for the alias and its settings; None if there is no pool."""
        end_forgotten()
        return pool_of(self) if self._pooled else None

    def close_pool(self) -> None:
        """Close the alias's pools; this wrapper's own connection is closed when it is returned."""
        end_forgotten()
        close_all(self.alias, patient=self.connection is None)

    # Connecting

    def get_connection_params(self) -> Any:
        """Return the arguments for the `connect` of greenpg's module for the driver."""
        plain = copy.copy(self)
        plain.settings_dict = without_pool(self.settings_dict)
        return super(DatabaseWrapper, plain).get_connection_params()

    @async_unsafe  # type: ignore[untyped-decorator]  # Django has no types
    def connect(self) -> None:
        """Connect completely or not at all: an interrupt leaves no half-configured connection."""
        backend = self._backend()
        shared = self.allow_thread_sharing
        self._task = None if shared else (backend, hash(backend.current()))
        self._connecting = True
        try:
            super().connect()
        except BaseException:
            with suppress(Database.Error, DatabaseError):
                self._close()
            self.connection = None
            raise
        finally:
            self._connecting = False

    @async_unsafe  # type: ignore[untyped-decorator]  # Django has no types
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Borrow a connection from the pool, or make one if there is none."""
        give_back: Callable[[Any], object]
        if (pool := self.pool) is None:
            connection = super().get_new_connection(conn_params)
            give_back = methodcaller("close")
        else:
            self.isolation_level = self.chosen_isolation_level() or IsolationLevel.READ_COMMITTED
            connection = pool.getconn()
            give_back = pool.putconn
        self._loan = Loan(self, connection, give_back, self._backend().current())
        return connection

    @async_unsafe  # type: ignore[untyped-decorator]  # Django has no types
    def create_cursor(self, name: str | None = None) -> Any:
        """Return a new cursor, green also where Django makes it itself."""
        return as_green(super().create_cursor(name))

    def _backend(self) -> Backend:
        chosen = self.settings_dict["OPTIONS"].get("backend")
        return current() if chosen is None else as_backend(chosen)

    def chosen_isolation_level(self) -> Any:
        """Return OPTIONS["isolation_level"] as an IsolationLevel, or None if it is not set."""
        level = self.settings_dict["OPTIONS"].get("isolation_level")
        if level is None:
            return None
        try:
            return IsolationLevel(level)
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {level} specified. Use one of the "
                "psycopg.IsolationLevel values."
            ) from None

    def close_if_health_check_failed(self) -> None:
        """Check a kept connection; a pool checks its connections itself."""
        if not self._pooled:
            super().close_if_health_check_failed()

    def _close(self) -> None:
        connection, loan, self._loan = self.connection, self._loan, None
        if connection is None:
            return
        if self._pooled:
            self.connection = None
        with self.wrap_database_errors:
            if loan is not None and loan.connection is connection:
                loan.end()
            else:
                connection.close()

    # Tasks and their interrupts

    @async_unsafe  # type: ignore[untyped-decorator]  # Django has no types
    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Set autocommit, but do not connect just to set what connecting sets anyway.

        A block whose connection an interrupt has closed can therefore end without waiting.
        """
        usual = autocommit == self.settings_dict["AUTOCOMMIT"]
        if self.connection is None and not self.in_atomic_block and usual:
            return
        super().set_autocommit(autocommit, *args, **kwargs)

    def _set_autocommit(self, autocommit: bool) -> None:
        self.rollback_exc = None  # its traceback refers to the task, and so keeps eventlet's locals
        super()._set_autocommit(autocommit)

    @async_unsafe  # type: ignore[untyped-decorator]  # Django has no types
    def ensure_connection(self) -> None:
        """Connect if necessary; raise DatabaseError if another task of this thread uses this."""
        self._refuse_other_tasks()
        super().ensure_connection()

    def _commit(self) -> None:
        try:
            super()._commit()
        except BaseException as error:
            if not isinstance(error, DatabaseError):  # after which Django rolls back
                self._end_interrupted()
            raise

    def _rollback(self) -> None:
        try:
            super()._rollback()
        except BaseException as error:
            if not isinstance(error, DatabaseError):  # after which Django closes
                self._end_interrupted()
            raise

    def _end_interrupted(self) -> None:
        """Roll back, within the connection's `cancel_timeout`, or close.

        Else Django would go on, with autocommit off, in a transaction that nothing ends, and run
        the transaction's `on_commit` functions after the next one.
        """
        self.run_on_commit: list[Any] = []
        conn = self.connection
        if conn is None:
            return
        try:
            with Deadline(conn, 0):
                conn.rollback()
        except BaseException as error:
            self.close()
            if not isinstance(error, Database.Error):
                raise

    def validate_thread_sharing(self) -> None:
        """Raise DatabaseError in other threads, and in other tasks of the same thread."""
        super().validate_thread_sharing()
        self._refuse_other_tasks()

    def _refuse_other_tasks(self) -> None:
        """Protect a transaction from other tasks; with monkey-patching each task has a wrapper."""
        used = self.connection is not None or self._connecting
        if self._task is None or not used or self.allow_thread_sharing:
            return
        backend, task = self._task
        if hash(backend.current()) != task:
            raise DatabaseError(
                f"the connection {self.alias!r} is in use by another task of this thread. Django "
                f"keeps connections by thread: monkey-patch with {backend.name} before Django is "
                "imported, so that every task has its own."
            )
