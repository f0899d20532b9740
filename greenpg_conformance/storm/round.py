"""One round of the storm: a few operations on a connection, each interrupted and checked."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from psycopg2 import extensions as ext

from greenpg.sync import ConnectionLock
from greenpg_conformance.toolkit.machine import Patience

from . import more, operations, streams  # noqa: F401  they fill the table
from .fixture import Fixture
from .interrupts import HARD, LESSER, CountingBackend, Interrupt, Run, was_cancelled

if TYPE_CHECKING:
    from itertools import count

    from greenpg_conformance.harness.drivers import Driver

    from .table import Operation

QUIET_SECONDS: Final = 1.0
STATES: Final = {
    "idle": ext.TRANSACTION_STATUS_IDLE,
    "idle in transaction": ext.TRANSACTION_STATUS_INTRANS,
    "idle in transaction (aborted)": ext.TRANSACTION_STATUS_INERROR,
}
OPEN: Final = (ext.TRANSACTION_STATUS_INTRANS, ext.TRANSACTION_STATUS_INERROR)
RUNNING: Final = """
    select pid, query from pg_stat_activity where application_name = %s and state = 'active'
"""


def prepared(observer: Any, gid: str) -> list[str]:
    """Return the prepared transactions whose global id begins like this, as the server has them."""
    rows = observer.ask("select gid from pg_prepared_xacts")
    xids: list[tuple[str, Any]] = [(row[0], ext.Xid.from_string(row[0])) for row in rows]  # type: ignore[no-untyped-call]  # a C function
    return [text for text, xid in xids if xid.gtrid.startswith(gid)]


class _Storm(Protocol):
    """What a round needs of its storm."""

    dsn: str
    driver: Driver
    operations: list[Operation]
    application: str
    table: str
    rows: count[int]
    counting: CountingBackend
    observer: Any
    description: Any
    kinds: tuple[str, ...]
    draw: Callable[[Random, tuple[str, ...]], list[Interrupt]]
    lost: int

    def end_sessions(self, living: int) -> None: ...


class Round:
    """A few operations on one connection, each interrupted and checked."""

    def __init__(self, storm: _Storm, seed: int, dsn: str) -> None:
        self.story: list[str] = [f"by {'the proxy' if dsn != storm.dsn else 'TCP'}"]
        self._storm = storm
        self._seed = seed
        self._counting = storm.counting
        self._observer = storm.observer
        self._fixture = Fixture(storm.driver, storm.counting, dsn, storm.table, storm.rows)

    def run(self, rng: Random) -> None:
        """Play the steps and compare the table at the end."""
        fixture = self._fixture
        fixture.conn.autocommit = rng.random() < 0.4
        for number in range(rng.randint(2, 5)):
            own = Random(f"{self._seed}.{number}")
            operation = own.choice(self._storm.operations)
            self._play(operation, self._storm.draw(own, self._storm.kinds), own)
        self._finish()

    def run_one(self, operation: Operation, interrupts: list[Interrupt]) -> None:
        """Play one operation, with these interrupts, in a transaction if it may be in one."""
        self._play(operation, interrupts, Random(self._seed))
        self._finish()

    def _finish(self) -> None:
        fixture = self._fixture
        if not fixture.conn.closed:
            fixture.rollback()
            fixture.echo(nap=0)
            fixture.rollback()
        self._compare()
        self.story.append("the end")

    def close(self) -> None:
        """Close the round's connections."""
        self._fixture.close()

    def _play(self, operation: Operation, interrupts: list[Interrupt], rng: Random) -> None:
        fixture = self._fixture
        fixture.rng = rng
        fixture.for_ever = any(interrupt.ends(operation.elsewhere) for interrupt in interrupts)
        fixture.cancelled.clear()
        self._prepare(operation, rng)
        self.story.append(f"{operation.name}, {'auto' if fixture.autocommit else 'tx'}")
        steps = operation.steps(fixture)
        next(steps)
        description, current = self._storm.description, lambda: fixture.statement
        run = Run(
            self._counting, description, fixture.conn, interrupts, current, self._storm.driver
        )
        try:
            run.perform(steps)
        finally:
            told = "; ".join(map(str, interrupts))
            self.story[-1] += f": {told} -> {run.error!r} in {run.seconds:.3f} s, {run.waits} waits"
        self._judge(operation, run)
        self._aftermath(operation, run, rng)

    def _prepare(self, operation: Operation, rng: Random) -> None:
        fixture = self._fixture
        mode = operation.autocommit
        changing = mode is not None and mode != fixture.autocommit
        if operation.fresh or changing or fixture.doomed is not False or fixture.gid:
            self._end_transaction()
        if fixture.transaction == ext.TRANSACTION_STATUS_INERROR:
            self._end_transaction()
        if changing:
            fixture.conn.autocommit = mode

    def _end_transaction(self) -> None:
        fixture = self._fixture
        fixture.rollback()
        if fixture.gid is not None:
            assert not prepared(self._observer, fixture.gid), "tpc_rollback() left it prepared"
            fixture.gid = None

    def _judge(self, operation: Operation, run: Run) -> None:
        complaint = run.complaint()
        if complaint and not (operation.loose and LESSER in complaint):
            raise AssertionError(complaint) from run.error
        self._judge_companions(run)
        self._judge_cancels(run)
        self._fixture.tidy()
        if self._may_abandon(run):
            self._storm.end_sessions(0 if self._fixture.conn.closed else self._fixture.pid)
        self._judge_connection(operation, run)

    def _may_abandon(self, run: Run) -> bool:
        """Return True if a connection may be closed, and its query be left to itself.

        A second Ctrl-C gives up; on threads a signal may come between any two steps.
        """
        return _twice(run) or bool(run.landed and "hub" not in self._counting.capabilities)

    def _judge_companions(self, run: Run) -> None:
        for job in self._fixture.jobs:
            job.stop()
            if job.error is not None and not self._is_forgiven(run, job.error):
                raise AssertionError(f"another task got {job.error!r}") from job.error

    def _is_forgiven(self, run: Run, error: BaseException) -> bool:
        driver, kinds = self._storm.driver, {interrupt.kind for interrupt in run.interrupts}
        if driver.closed(error):
            return "close" in kinds or self._may_abandon(run)
        return "cancel" in kinds and isinstance(error, driver.cancelled)

    def _judge_cancels(self, run: Run) -> None:
        meant = [interrupt.target for interrupt in run.interrupts if interrupt.kind == "cancel"]
        strays = set(self._fixture.cancelled).difference(meant)
        assert self._fixture.jobs or not strays, f"cancelled in place of {meant}: {strays}"

    def _judge_connection(self, operation: Operation, run: Run) -> None:
        fixture = self._fixture
        self._quiet()
        if operation.elsewhere:
            self._alone()
        if fixture.conn.closed:
            self._storm.lost += self._lost(run)
            self._finish_two_phase()
            fixture.renew()
            return
        self._judge_lock(run)
        self._agree()
        if operation.settles and len(run.landed) == len(run.interrupts) > 0:
            assert fixture.settled(), "an interrupt kept it from having its effect"
            fixture.rollback()

    def _judge_lock(self, run: Run) -> None:
        """Fail if the lock is held; one that a signal has kept from release, others take over."""
        lock = ConnectionLock(self._fixture.conn)
        if lock.locked() and self._may_abandon(run):
            self._counting.spawn(_pass_through, lock).join(QUIET_SECONDS)
        assert not lock.locked(), "the lock is still held"

    def _lost(self, run: Run) -> bool:
        """Fail if there was no reason to close the connection; False for a good one."""
        if any(interrupt.kind == "close" for interrupt in run.interrupts):
            return False
        assert self._may_abandon(run), "the connection was lost"
        return not _twice(run)

    def _finish_two_phase(self) -> None:
        fixture = self._fixture
        for gid in prepared(self._observer, fixture.gid) if fixture.gid is not None else ():
            self._observer.ask(f"rollback prepared '{gid}'")
            fixture.ledger.refused()
        fixture.gid = None

    def _agree(self) -> None:
        """Compare the driver's idea of the transaction with libpq's and the server's."""
        fixture = self._fixture
        transaction = fixture.transaction
        opened, is_prepared = self._storm.driver.beliefs(fixture.conn)
        rows = self._observer.ask("select state from pg_stat_activity where pid = %s", fixture.pid)
        told = f"open {opened}, prepared {is_prepared}, libpq {transaction}, server {rows[0][0]!r}"
        assert STATES[rows[0][0]] == transaction, f"libpq and the server disagree: {told}"
        inside = transaction in OPEN
        failed = fixture.gid is not None and not inside  # a PREPARE: tpc_rollback() is to come
        assert opened == inside or failed, f"the driver disagrees: {told}"
        if fixture.gid is not None:
            on_server = bool(prepared(self._observer, fixture.gid))
            assert on_server == is_prepared, f"prepared {on_server}: {told}"

    def _quiet(self) -> None:
        patience = Patience(QUIET_SECONDS)
        while rows := self._observer.ask(RUNNING, self._storm.application):
            assert patience.left(), f"still running: {rows}"
            self._counting.sleep(0.002)

    def _alone(self) -> None:
        """Wait until the round's connection is the only session."""
        patience = Patience(QUIET_SECONDS)
        while len(found := self._observer.sessions(self._storm.application)) > 1:
            assert patience.left(), f"sessions are left: {found}"
            self._counting.sleep(0.002)

    def _aftermath(self, operation: Operation, run: Run, rng: Random) -> None:
        fixture = self._fixture
        inside = fixture.transaction in OPEN
        if not inside:
            fixture.ended()
        elif run.error is not None and not was_cancelled(run.error, self._storm.driver):
            vague = operation.lax or operation.elsewhere
            vague = vague or any(interrupt.kind == "deadline" for interrupt in run.interrupts)
            vague = vague or "hub" not in self._counting.capabilities
            fixture.doomed = None if vague else True
        choice = rng.choice(("nothing", "probe", "commit", "rollback", "undo", "undo"))
        self.story[-1] += f", {choice}"
        if fixture.gid is None:
            getattr(self, f"_then_{choice}")()

    def _then_nothing(self) -> None: ...

    def _then_rollback(self) -> None:
        self._fixture.rollback()

    def _then_probe(self) -> None:
        fixture = self._fixture
        try:
            fixture.echo(nap=0)
        except self._storm.driver.failed_transaction:
            failed = fixture.transaction == ext.TRANSACTION_STATUS_INERROR
            assert failed or fixture.doomed is not False, "a sound transaction was refused"
        else:
            assert not fixture.doomed, "a statement was accepted after an interrupt"

    def _then_commit(self) -> None:
        fixture = self._fixture
        try:
            fixture.commit()
        except self._storm.driver.failed_transaction:
            assert fixture.doomed is not False, "commit() of a sound transaction was refused"

    def _then_undo(self) -> None:
        """Roll back to the savepoint, if there is one, and go on."""
        fixture = self._fixture
        if fixture.savepoint is None:
            return
        fixture.conn.cursor().execute("rollback to savepoint storm")
        fixture.ledger.undo_since(fixture.savepoint)
        fixture.doomed = False
        fixture.write(nap=0)
        fixture.commit()

    def _compare(self) -> None:
        fixture = self._fixture
        fixture.ended()
        query = f"select id from {self._storm.table} where id = any(%s)"
        rows = self._observer.ask(query, list(fixture.rows))
        complaint = fixture.ledger.complaint({row[0] for row in rows})
        assert complaint is None, complaint


def _twice(run: Run) -> bool:
    return sum(interrupt.kind == HARD for interrupt in run.landed) > 1


def _pass_through(lock: ConnectionLock) -> None:
    with lock:
        pass
