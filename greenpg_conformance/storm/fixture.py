"""The connection that the storm's operations use, with what is known of its transaction."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import extensions as ext
from psycopg2._psycopg import _connect

from .ledger import Ledger

if TYPE_CHECKING:
    from greenpg_conformance.harness.drivers import Driver

NAPS: Final = (0.0, 0.0, 0.003, 0.02)
FOR_EVER: Final = 30.0  # an interrupted query that goes on sleeping is found on the server
_tokens = itertools.count(1000)


class Fixture:
    """One round's connection. Every row and result is checked against what it must be."""

    def __init__(self, driver: Driver, backend: Any, dsn: str, table: str, rows: Any) -> None:
        self.driver = driver
        self.backend = backend
        self.dsn = dsn
        self.table = table
        self.rng = Random()
        self.for_ever = False  # an interrupt is sure to come
        self.ledger = Ledger()
        self.doomed: bool | None = False  # None: nobody can tell
        self.savepoint: int | None = None
        self.statement: int | None = None
        self.cancelled: list[int] = []
        self.gid: str | None = None
        self.settled: Callable[[], bool] = lambda: True
        self.rows: set[int] = set()
        self.others: list[Any] = []
        self.jobs: list[Any] = []
        self._numbers = rows
        self.conn: Any = self.connected()
        self.pid: int = self.conn.info.backend_pid

    # Connections

    def connected(self, **options: Any) -> Any:
        """Return another connection."""
        return self.driver.connect(self.dsn, backend=self.backend, **options)

    def plain(self) -> Any:
        """Return a connection of psycopg2's own class, as one made before the patch."""
        conn = _connect(self.dsn, None, False)  # type: ignore[no-untyped-call]  # a C function
        self.others.append(conn)
        return conn

    def another(self, **options: Any) -> Any:
        """Return another connection, closed after the step."""
        self.others.append(self.connected(**options))
        return self.others[-1]

    def renew(self) -> None:
        """Replace the connection, which is closed."""
        autocommit = self.autocommit
        self.ended()
        self.conn = self.connected()
        self.conn.autocommit = autocommit
        self.pid = self.conn.info.backend_pid

    def close(self) -> None:
        """Close all connections."""
        self.tidy()
        self.conn.close()

    def tidy(self) -> None:
        """End what the step made beside its connection."""
        while self.jobs:
            self.jobs.pop().stop()
        while self.others:
            with suppress(self.driver.error):
                self.others.pop().close()

    # Statements

    @property
    def autocommit(self) -> bool:
        """Whether the connection is under autocommit."""
        return bool(self.conn.autocommit)

    def nap(self) -> float:
        """Return seconds for a statement to sleep on the server."""
        return FOR_EVER if self.for_ever else self.rng.choice(NAPS)

    def echo(self, conn: Any = None, nap: float | None = None) -> None:
        """Run a statement and check that the result is its own."""
        token = next(_tokens)
        cur = (conn or self.conn).cursor()
        self._execute(cur, "select %s, pg_sleep(%s)", (token, self.nap() if nap is None else nap))
        found = cur.fetchall()
        assert found == [(token, "")], f"{found} is not the row of token {token}"

    def _execute(self, cur: Any, query: str, args: tuple[object, ...]) -> None:
        self.statement = number = next(_tokens)
        try:
            cur.execute(query, args)
        except self.driver.cancelled as error:
            if type(error) is self.driver.cancelled:
                self.cancelled.append(number)
            raise
        finally:
            self.statement = None

    def row(self) -> int:
        """Return the id of a row to insert."""
        self.rows.add(number := int(next(self._numbers)))
        return number

    def write(
        self, nap: float | None = None, commit_nap: float = 0.0, auto: bool | None = None
    ) -> int:
        """Insert a row, whose COMMIT lasts `commit_nap`. `auto`: in its own transaction."""
        row, auto = self.row(), self.autocommit if auto is None else auto
        nap = self.nap() if nap is None else nap
        cur = self.conn.cursor()
        self.ledger.begin(row, auto)
        self._execute(cur, self.driver.writing.format(self.table), (row, commit_nap, nap))
        self.ledger.acknowledge(row, auto)
        return row

    @property
    def insert(self) -> str:
        """An insert of a row's id and the nap at its commit."""
        return f"insert into {self.table} values (%s, %s)"

    def commit(self) -> None:
        """Commit, and keep the books."""
        aborted = self.transaction == ext.TRANSACTION_STATUS_INERROR
        if not aborted:
            self.ledger.committing()
        try:
            self.conn.commit()
        except self.driver.failed_transaction:
            self.ledger.refused()
            raise
        assert not self.doomed, "commit() was accepted after an interrupt"
        (self.ledger.over if aborted else self.ledger.committed)()
        self.ended()

    def rollback(self) -> None:
        """End a transaction of any kind without a commit."""
        if self.gid is None:
            self.conn.rollback()
        else:
            try:
                self.conn.tpc_rollback()
            except self.driver.programming:  # the interrupt came before the transaction had begun
                self.conn.rollback()
        self.ended()

    def ended(self) -> None:
        """Note that the transaction is over."""
        self.ledger.over()
        self.doomed = False
        self.savepoint = None

    @property
    def transaction(self) -> int:
        """The server's transaction status, as libpq knows it."""
        return int(self.conn.info.transaction_status)
