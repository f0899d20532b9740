"""Interrupts and lost connections: what was sent may have run, the rest goes on."""

from __future__ import annotations

import sys
from fcntl import ioctl
from termios import FIONREAD

import psycopg2
import pytest

from greenpg._protocol.groups import Groups
from greenpg.backend import current, soon
from greenpg.multiplexer._line import FRESH
from greenpg_conformance.toolkit.fake_server import message
from tests.db.multiplexer.conftest import SLOW, pid, running, terminate, until


class Interrupt(BaseException):
    """Stands for a timeout."""


def test_deadline_cancels_the_only_statement(mux, auto):
    with pytest.raises(psycopg2.OperationalError), mux.deadline(0.1):
        mux.execute(SLOW)

    until(lambda: not running(auto.cursor(), SLOW), "the statement was cancelled")
    assert mux.execute("select 1").fetchone() == (1,)


def test_deadline_spares_the_others(make, spawn, gate):
    mux = make(max_size=1, slow=60)
    mux.execute("select 1")
    mux.execute(f"select {gate.function}(0)")
    first = spawn(mux.execute, f"select 7 from (select {gate.function}({gate.key})) x")
    gate.wait_for()

    with pytest.raises(psycopg2.OperationalError), mux.deadline(0.1):
        mux.execute("select 1")
    assert not first.ended
    gate.open()

    assert first.result().fetchone() == (7,)
    assert mux.execute("select 8").fetchone() == (8,)


def test_interrupted_statement_in_the_queue_never_runs(make, create, spawn, gate):
    table = create("(n int)")
    mux = make(max_size=1)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()

    with pytest.raises(psycopg2.OperationalError), mux.deadline(0.1):
        mux.execute(f"insert into {table} values (1)")
    gate.open()
    slow.result()

    assert mux.execute(f"select count(*) from {table}").fetchone() == (0,)


@pytest.mark.green
def test_kill_ends_the_wait_at_once(mux, auto, spawn):
    job = spawn(mux.execute, SLOW)
    until(lambda: running(auto.cursor(), SLOW), "it runs")

    job.kill()

    assert isinstance(job.join().error, current().exits)
    until(lambda: not running(auto.cursor(), SLOW), "the statement was cancelled")
    assert mux.execute("select 1").fetchone() == (1,)


def test_terminated_session_fails_what_was_sent(make, dsn, spawn, gate):
    mux = make(max_size=1)
    session = pid(mux)
    sent = spawn(mux.execute, gate.sql)
    gate.wait_for()
    queued = spawn(mux.execute, "select 5")

    terminate(dsn, session)

    error = sent.join().error
    assert isinstance(error, psycopg2.OperationalError)
    assert "may have run" in str(error)
    assert queued.result().fetchone() == (5,)
    assert pid(mux) != session


def test_session_that_ended_while_idle_costs_no_statement(mux, dsn):
    for _ in range(5):
        terminate(dsn, pid(mux))
        current().sleep(2 * FRESH)  # else it is not looked at

        assert mux.execute("select 1").fetchone() == (1,)


def test_lost_connection_is_replaced(make, proxy, spawn):
    mux = make(proxy.dsn)
    assert mux.execute("select 1").fetchone() == (1,)

    proxy.cut()

    until(lambda: spawn(mux.execute, "select 1").join().error is None, "a new connection")


def test_closed_connection_is_not_read(mux, gate, spawn, monkeypatch):
    read, receive = [], Groups.receive
    mux.execute("select 1")
    (line,) = mux._dispatcher.lines

    def spied(groups):
        read.append(line.conn.closed)
        return receive(groups)

    monkeypatch.setattr(Groups, "receive", spied)
    job = spawn(mux.execute, gate.sql)
    gate.wait_for()

    line._state.close_soon()
    gate.open()

    assert isinstance(job.join().error, psycopg2.OperationalError)
    assert not any(read)
    assert mux.execute("select 1").fetchone() == (1,)


@pytest.mark.green
def test_hub_is_refused(mux, spawn):
    mux.execute("select 1")
    found = []

    def ask():
        try:
            mux.execute("select 1")
        except psycopg2.ProgrammingError as error:
            found.append(error)

    soon(current())(ask)

    until(lambda: found, "refused")
    assert "event loop" in str(found[0])


@pytest.mark.green
def test_other_os_thread_is_refused(mux):
    mux.execute("select 1")

    def ask():
        with pytest.raises(psycopg2.ProgrammingError, match="OS thread"):
            mux.execute("select 1")
        return True

    assert current().in_thread(ask)
    assert mux.execute("select 1").fetchone() == (1,)


@pytest.mark.green
def test_killed_task_of_the_multiplexer_is_replaced(make, spawn, gate):
    mux = make()
    pid(mux)

    for task in list(mux._dispatcher.tasks):
        killer = getattr(task, "kill", None) or task.throw
        spawn(killer)

    until(lambda: spawn(mux.execute, "select 1").join().error is None, "a new connection")


def test_statistics_count_statements(make):
    mux = make(max_size=1)
    for _ in range(3):
        mux.execute("select 1")

    stats = mux.get_stats()
    assert stats["requests_num"] >= 3
    assert (stats["pool_size"], stats["connections_num"]) == (1, 1)


def test_answers_out_of_step_behind_good_ones_end_the_wait(fake, make, spawn, monkeypatch):
    """They may come in one piece, behind which the server says nothing more."""
    usual = ready = message(b"Z", b"I")
    for part in (message(b"C", b"SELECT\0"), message(b"n"), message(b"2"), message(b"1")):
        usual = part + usual
    mux = make(fake.dsn, max_size=1)
    mux.execute("select 1")
    fd = mux._dispatcher.lines[0].conn.fileno()
    receive, size = Groups.receive, 2 * len(usual) - len(message(b"1")) + len(ready)

    def receive_all(groups):
        until(lambda: waiting(fd) >= size, "all has come")
        monkeypatch.setattr(Groups, "receive", receive)
        return receive(groups)

    monkeypatch.setattr(Groups, "receive", receive_all)
    fake.answer(b"odd", ready)
    good = spawn(mux.execute, "select 2")
    until(lambda: mux._dispatcher.lines[0]._sent, "it is under way")
    odd = spawn(mux.execute, "select odd")

    with pytest.raises(psycopg2.OperationalError, match="may have run"):
        odd.result()
    good.result()
    fake.answer(b"", b"")


def waiting(fd):
    """Return the number of bytes that a socket has received."""
    return int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)
