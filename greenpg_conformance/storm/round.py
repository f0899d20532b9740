"""One round of the storm: a few operations on a connection, each interrupted and judged."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import InterfaceError
from psycopg2 import extensions as ext
from psycopg2.errors import QueryCanceled

from greenpg.errors import InFailedSqlTransaction
from greenpg.sync import ConnectionLock
from greenpg_conformance.toolkit.machine import Patience

from . import more, operations, streams  # noqa: F401  they fill the table
from .scene import Scene
from .strikes import HARD, LESSER, Run, Strike, was_cancelled
from .table import OPERATIONS, Operation

if TYPE_CHECKING:
    from .storm import Storm

__all__ = ["Round", "prepared"]

QUIET_SECONDS: Final = 1.0
STATES: Final = {
    "idle": ext.TRANSACTION_STATUS_IDLE,
    "idle in transaction": ext.TRANSACTION_STATUS_INTRANS,
    "idle in transaction (aborted)": ext.TRANSACTION_STATUS_INERROR,
}
OPEN: Final = (ext.TRANSACTION_STATUS_INTRANS, ext.TRANSACTION_STATUS_INERROR)
FORGIVEN: Final = {"cancel": QueryCanceled, "close": InterfaceError}
RUNNING: Final = """
    select pid, query from pg_stat_activity where application_name = %s and state = 'active'
"""


def prepared(observer: Any, gid: str) -> list[str]:
    """Return the prepared transactions whose global id begins like this, as the server has them."""
    rows = observer.ask("select gid from pg_prepared_xacts")
    xids: list[tuple[str, Any]] = [(row[0], ext.Xid.from_string(row[0])) for row in rows]  # type: ignore[no-untyped-call]  # a C function
    return [text for text, xid in xids if xid.gtrid.startswith(gid)]


class Round:
    """A few operations on one connection, each interrupted and judged."""

    def __init__(self, storm: Storm, seed: int, dsn: str) -> None:
        self.story: list[str] = [f"by {'the proxy' if dsn != storm.dsn else 'TCP'}"]
        self._storm = storm
        self._seed = seed
        self._striker = storm.striker
        self._observer = storm.observer
        self._scene = Scene(storm.striker, dsn, storm.table, storm.rows)

    def run(self, rng: Random) -> None:
        """Play the steps and compare the table at the end."""
        scene = self._scene
        scene.conn.autocommit = rng.random() < 0.4
        for number in range(rng.randint(2, 5)):
            self._step(Random(f"{self._seed}.{number}"))
        self._finish()

    def run_one(self, operation: Operation, strikes: list[Strike]) -> None:
        """Play one operation, interrupted as told, in a transaction if it may be in one."""
        self._play(operation, strikes, Random(self._seed))
        self._finish()

    def _finish(self) -> None:
        scene = self._scene
        if not scene.conn.closed:
            scene.rollback()
            scene.echo(nap=0)
            scene.rollback()
        self._compare()
        self.story.append("the end")

    def close(self) -> None:
        """Close the round's connections."""
        self._scene.close()

    def _step(self, rng: Random) -> None:
        operation = rng.choice(OPERATIONS)
        self._play(operation, self._storm.draw(rng, self._storm.kinds), rng)

    def _play(self, operation: Operation, strikes: list[Strike], rng: Random) -> None:
        scene = self._scene
        scene.rng = rng
        scene.for_ever = any(strike.ends(operation.elsewhere) for strike in strikes)
        scene.cancelled.clear()
        self._prepare(operation, rng)
        self.story.append(f"{operation.name}, {'auto' if scene.autocommit else 'tx'}")
        steps = operation.steps(scene)
        next(steps)
        description, current = self._storm.description, lambda: scene.statement
        run = Run(self._striker, description, scene.conn, strikes, current)
        try:
            run.perform(steps)
        finally:
            told = "; ".join(map(str, strikes))
            self.story[-1] += f": {told} -> {run.error!r} in {run.seconds:.3f} s, {run.waits} waits"
        self._judge(operation, run)
        self._aftermath(operation, run, rng)

    def _prepare(self, operation: Operation, rng: Random) -> None:
        scene = self._scene
        mode = operation.autocommit
        changing = mode is not None and mode != scene.autocommit
        if operation.fresh or changing or scene.doomed is not False or scene.gid:
            self._end_transaction()
        if scene.transaction == ext.TRANSACTION_STATUS_INERROR:
            self._end_transaction()
        if changing:
            scene.conn.autocommit = mode

    def _end_transaction(self) -> None:
        scene = self._scene
        scene.rollback()
        if scene.gid is not None:
            assert not prepared(self._observer, scene.gid), "tpc_rollback() left it prepared"
            scene.gid = None

    # The verdict

    def _judge(self, operation: Operation, run: Run) -> None:
        complaint = run.complaint()
        if complaint and not (operation.loose and LESSER in complaint):
            raise AssertionError(complaint) from run.error
        self._judge_companions(run)
        self._judge_cancels(run)
        self._scene.tidy()
        if self._may_abandon(run):
            self._storm.end_sessions(0 if self._scene.conn.closed else self._scene.pid)
        self._judge_connection(operation, run)

    def _may_abandon(self, run: Run) -> bool:
        """Tell whether a connection may be closed, and its query be left to itself.

        A second Ctrl-C gives up; on threads a signal may come between any two steps.
        """
        twice = sum(strike.kind == HARD for strike in run.landed) > 1
        return twice or bool(run.landed and "hub" not in self._striker.capabilities)

    def _judge_companions(self, run: Run) -> None:
        for job in self._scene.jobs:
            job.stop()
            forgiven = [FORGIVEN[s.kind] for s in run.strikes if s.kind in FORGIVEN]
            forgiven += [InterfaceError] if self._may_abandon(run) else []
            if job.error is not None and not isinstance(job.error, tuple(forgiven)):
                raise AssertionError(f"another task got {job.error!r}") from job.error

    def _judge_cancels(self, run: Run) -> None:
        """Compare the statements that were cancelled with those that were meant."""
        meant = [strike.target for strike in run.strikes if strike.kind == "cancel"]
        strays = set(self._scene.cancelled).difference(meant)
        assert self._scene.jobs or not strays, f"cancelled in place of {meant}: {strays}"

    def _judge_connection(self, operation: Operation, run: Run) -> None:
        scene = self._scene
        self._quiet()
        if operation.elsewhere:
            self._alone()
        if scene.conn.closed:
            self._storm.lost += self._lost(run)
            self._finish_two_phase()
            scene.renew()
            return
        self._judge_lock(run)
        self._agree()
        if operation.settles and len(run.landed) == len(run.strikes) > 0:
            assert scene.settled(), "an interrupt kept it from having its effect"
            scene.rollback()

    def _judge_lock(self, run: Run) -> None:
        """Fail if the lock is held; one that a signal has kept from release, others take over."""
        lock = ConnectionLock(self._scene.conn)
        if lock.locked() and self._may_abandon(run):
            self._striker.spawn(_pass_through, lock).join(QUIET_SECONDS)
        assert not lock.locked(), "the lock is still held"

    def _lost(self, run: Run) -> bool:
        """Fail if there was no reason to close the connection; False for a good one."""
        if any(strike.kind == "close" for strike in run.strikes):
            return False
        assert self._may_abandon(run), "the connection was lost"
        return True

    def _finish_two_phase(self) -> None:
        """Roll back what a closed connection has left prepared."""
        scene = self._scene
        for gid in prepared(self._observer, scene.gid) if scene.gid is not None else ():
            self._observer.ask(f"rollback prepared '{gid}'")
            scene.ledger.refused()
        scene.gid = None

    def _agree(self) -> None:
        """Compare psycopg2's status, libpq's and the server's."""
        scene = self._scene
        status, transaction = scene.conn.status, scene.transaction
        rows = self._observer.ask("select state from pg_stat_activity where pid = %s", scene.pid)
        told = f"status {status}, libpq {transaction}, server {rows[0][0]!r}"
        assert STATES[rows[0][0]] == transaction, f"libpq and the server disagree: {told}"
        inside = transaction in OPEN
        failed = scene.gid is not None and not inside  # a PREPARE: tpc_rollback() is to come
        assert (status == ext.STATUS_BEGIN) == inside or failed, f"psycopg2 disagrees: {told}"
        if scene.gid is not None:
            on_server = bool(prepared(self._observer, scene.gid))
            assert on_server == (status == ext.STATUS_PREPARED), f"prepared {on_server}: {told}"

    def _quiet(self) -> None:
        patience = Patience(QUIET_SECONDS)
        while rows := self._observer.ask(RUNNING, self._storm.application):
            assert patience.left(), f"still running: {rows}"
            self._striker.sleep(0.002)

    def _alone(self) -> None:
        """Wait until the round's connection is the only session."""
        patience = Patience(QUIET_SECONDS)
        while len(found := self._observer.sessions(self._storm.application)) > 1:
            assert patience.left(), f"sessions are left: {found}"
            self._striker.sleep(0.002)

    # What a program may do next

    def _aftermath(self, operation: Operation, run: Run, rng: Random) -> None:
        scene = self._scene
        inside = scene.transaction in OPEN
        if not inside:
            scene.ended()
        elif run.error is not None and not was_cancelled(run.error):
            vague = operation.lax or any(strike.kind == "deadline" for strike in run.strikes)
            vague = vague or "hub" not in self._striker.capabilities
            scene.doomed = None if vague or operation.elsewhere else True
        choice = rng.choice(("nothing", "probe", "commit", "rollback", "undo", "undo"))
        self.story[-1] += f", {choice}"
        if scene.gid is None:
            getattr(self, f"_then_{choice}")()

    def _then_nothing(self) -> None:
        """Leave it as it is."""

    def _then_rollback(self) -> None:
        self._scene.rollback()

    def _then_probe(self) -> None:
        scene = self._scene
        try:
            scene.echo(nap=0)
        except InFailedSqlTransaction:
            failed = scene.transaction == ext.TRANSACTION_STATUS_INERROR
            assert failed or scene.doomed is not False, "a sound transaction was refused"
        else:
            assert not scene.doomed, "a statement was accepted after an interrupt"

    def _then_commit(self) -> None:
        scene = self._scene
        try:
            scene.commit()
        except InFailedSqlTransaction:
            assert scene.doomed is not False, "commit() of a sound transaction was refused"

    def _then_undo(self) -> None:
        """Roll back to the savepoint, if there is one, and go on."""
        scene = self._scene
        if scene.savepoint is None:
            return
        scene.conn.cursor().execute("rollback to savepoint storm")
        scene.ledger.undo_since(scene.savepoint)
        scene.doomed = False
        scene.write(nap=0)
        scene.commit()

    def _compare(self) -> None:
        scene = self._scene
        scene.ended()
        rows = self._observer.ask(
            f"select id from {self._storm.table} where id = any(%s)", list(scene.rows)
        )
        complaint = scene.ledger.complaint({row[0] for row in rows})
        assert complaint is None, complaint


def _pass_through(lock: ConnectionLock) -> None:
    with lock:
        pass
