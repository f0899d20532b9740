"""The core, with a driver, a loop and a clock that are all simulated."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from greenpg._session import forks
from greenpg._session.session import TransactionStatus
from greenpg.sync import ConnectionLock, Deadline

from .fake_driver import (
    DeadlineExceeded,
    FailedTransaction,
    FakeConnection,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    run_by,
)
from .simtasks import Killed, Sim


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Sim:
    made = Sim()
    run_by(monkeypatch, made)
    return made


@pytest.fixture
def conn(sim: Sim) -> FakeConnection:
    return FakeConnection(sim)


def caught(fn: Callable[..., object], *args: object) -> BaseException | None:
    try:
        fn(*args)
    except BaseException as exc:
        return exc
    return None


class Task:
    """Runs a function in the simulation and keeps what it raises."""

    def __init__(self, sim: Sim, fn: Callable[..., object], *args: object) -> None:
        self.error: BaseException | None = None
        self.ended: float | None = None
        self._sim = sim
        self.greenlet = sim.spawn(self._run, fn, *args)

    def _run(self, fn: Callable[..., object], *args: object) -> None:
        self.error = caught(fn, *args)
        self.ended = self._sim.now


def is_free(conn: FakeConnection) -> bool:
    """Return True if nothing of an operation or of an interrupt is left."""
    state = conn._greenpg_state
    left = (state.holder, state.in_driver, state.depth, list(state.queue), state.pending)
    return left == (None, False, 0, [], None)


def test_two_tasks_take_turns(sim, conn):
    tasks = [Task(sim, conn.execute, name) for name in ("one", "two")]

    sim.run()

    assert conn.ran == ["one", "two"]
    assert [task.ended for task in tasks] == [1001.0, 1002.0]
    assert is_free(conn)


def test_block_keeps_the_other_task_out(sim, conn):
    def block() -> None:
        with ConnectionLock(conn):
            conn.execute("one")
            sim.park(5)
            conn.execute("two")

    Task(sim, block)
    Task(sim, conn.execute, "three")
    sim.run()

    assert conn.ran == ["one", "two", "three"]


STEPS = 6  # of the scene below, from before it enters until after its recovery


@pytest.mark.parametrize("first", range(STEPS))
@pytest.mark.parametrize("second", [None, *range(STEPS)])
def test_interrupt_at_each_step_loses_nothing(sim, conn, first, second):
    """Two tasks have a transaction each; the first is killed once or twice, wherever it waits."""

    def transaction(name: str) -> None:
        with ConnectionLock(conn):
            try:
                conn.execute("begin")
                conn.execute(name)
                conn.execute("commit")
            except BaseException:
                conn.execute("rollback")
                raise

    victim, other = Task(sim, transaction, "first"), Task(sim, transaction, "second")

    def killer(step: int) -> None:
        sim.park(step * 0.55 + 0.05)
        sim.kill(victim.greenlet)

    for step in (first, second):
        if step is not None:
            Task(sim, killer, step)
    sim.run()

    assert other.error is None
    assert "second" in conn.ran
    assert conn.closed or is_free(conn)
    if victim.error is None:
        assert "first" in conn.ran
    else:
        assert isinstance(victim.error, Killed)
        assert "rollback" in conn.ran or "commit" in conn.ran[: conn.ran.index("second")]


def test_interrupt_is_raised_as_the_same_object_after_a_cancel(sim, conn):
    task = Task(sim, conn.execute, "query", 60)
    kill = Killed()

    def interrupt() -> None:
        sim.park(1)
        conn._greenpg_state.waiter.interrupt(kill)

    Task(sim, interrupt)
    sim.run()

    assert task.error is kill
    assert (conn.cancels, conn.ran) == (1, [])
    assert task.ended == pytest.approx(1001.2)


def swallow(conn: FakeConnection) -> None:
    """Interrupt a statement of a transaction, and forget about it."""
    conn.execute("begin")
    with suppress(DeadlineExceeded), Deadline(conn, 0.5):
        conn.execute("query")


@pytest.mark.parametrize("statement", ["query", "commit", "begin"])
def test_interrupted_transaction_takes_nothing_but_a_rollback(sim, conn, statement):
    def program() -> None:
        swallow(conn)
        conn.execute(statement)

    task = Task(sim, program)
    sim.run()

    assert isinstance(task.error, FailedTransaction)
    assert conn.ran == ["begin"]
    assert is_free(conn)


def test_rollback_ends_the_refusal(sim, conn):
    def program() -> None:
        swallow(conn)
        conn.execute("rollback")
        conn.execute("query")

    task = Task(sim, program)
    sim.run()

    assert task.error is None
    assert conn.ran == ["begin", "rollback", "query"]
    assert conn.status is TransactionStatus.IDLE


def test_deadline_bounds_the_wait_for_the_lock_too(sim, conn):
    def bounded() -> None:
        with Deadline(conn, 0.5):
            conn.execute("late")

    Task(sim, conn.execute, "long", 10)
    task = Task(sim, bounded)
    sim.run()

    assert isinstance(task.error, DeadlineExceeded)
    assert task.ended == 1000.5
    assert conn.ran == ["long"]


def test_deadline_that_has_passed_begins_nothing(sim, conn):
    def program() -> None:
        with Deadline(conn, 0.5):
            sim.park(1)
            conn.execute("late")

    task = Task(sim, program)
    sim.run()

    assert isinstance(task.error, DeadlineExceeded)
    assert (conn.ran, conn.cancels) == ([], 0)
    assert is_free(conn)


def test_rollback_may_take_longer_than_the_deadline(sim, conn):
    def program() -> None:
        conn.execute("begin")
        with Deadline(conn, 0.5):
            conn.execute("rollback", 2)

    task = Task(sim, program)
    sim.run()

    assert task.error is None
    assert conn.ran == ["begin", "rollback"]


def test_close_ends_another_tasks_wait(sim, conn):
    task = Task(sim, conn.execute, "query", 60)

    def close() -> None:
        sim.park(1)
        conn._greenpg_state.close_soon()
        conn._greenpg_state.waiter.interrupt(conn._greenpg_state.closed_error())

    Task(sim, close)
    sim.run()

    assert isinstance(task.error, InterfaceError)
    assert conn.closed


def test_operation_waits_for_cancel_requests_under_way(sim, conn):
    def cancel() -> None:
        with conn._greenpg_state.cancelling():
            sim.park(3)

    Task(sim, cancel)
    first = Task(sim, conn.execute, "query")
    sim.run()

    assert first.error is None
    assert first.ended == 1003.0


def test_nothing_may_wait_in_the_hub(sim, conn):
    assert isinstance(caught(conn.execute, "query"), ProgrammingError)
    assert is_free(conn)


def test_reentry_of_the_same_task_is_refused(sim, conn):
    def program() -> None:
        conn._greenpg_state.enter()
        conn.execute("nested")

    task = Task(sim, program)
    sim.run()

    assert isinstance(task.error, ProgrammingError)


class Socketed(FakeConnection):
    """A connection with a real descriptor."""

    def __init__(self, sim: Sim) -> None:
        super().__init__(sim)
        self.ours, self.peers = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()


def test_forked_child_reads_the_end_of_file_and_the_parent_nothing(sim):
    conn: Any = Socketed(sim)
    conn.watched = forks.Watched(conn)
    forks.watched.add(conn.watched)

    pid = os.fork()
    if not pid:
        task = Task(sim, conn.execute, "query")
        sim.run()
        os._exit(isinstance(task.error, OperationalError) and conn.ours.recv(1) == b"")
    _, status = os.waitpid(pid, 0)
    conn.peers.send(b"!")

    assert os.waitstatus_to_exitcode(status) == 1
    assert conn.ours.recv(1) == b"!"
    assert not conn._greenpg_state.forked
    forks.watched.discard(conn.watched)
    conn.ours.close()
    conn.peers.close()
