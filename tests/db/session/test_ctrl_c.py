"""A real Ctrl-C, sent to a process whose main thread runs a query on the threads backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

import greenpg
from greenpg._psycopg2.wait_callback import wait_callback
from greenpg.backend import current
from greenpg_conformance.toolkit.observer import Observer
from tests.db.conftest import until

if current().name != "threads":
    pytest.skip("the children have a backend of their own", allow_module_level=True)

SOON: Final = 1.0  # it takes 0.2 s on a quiet machine, 2 s with psycopg2's own loop
LONG: Final = "select pg_sleep(30)"

PRELUDE: Final = """
import os, signal, sys, threading, time
import greenpg

def say(*words):
    print(*words, flush=True)

def connect(dsn=os.environ["DSN"], **options):
    made = greenpg.connect(dsn, backend="threads", **options)
    made.autocommit = True
    say(made.info.backend_pid)
    return made

def within(block, query):
    with block:
        conn.cursor().execute(query)

def cancelled(conn, query):
    try:
        conn.cursor().execute(query)
    except greenpg.errors.QueryCanceled:
        pass

def answer(conn):
    with conn.cursor() as cur:
        cur.execute("select 7")
        say(cur.fetchone()[0])
"""
INTERRUPTED: Final = """
try:
    {statement}
except {error} as error:
    say("interrupted")
"""
STATEMENTS: Final = {
    "execute": f"conn.cursor().execute('{LONG}')",
    "executemany": "conn.cursor().executemany('select pg_sleep(%s)', [(0,), (30,)])",
    "callproc": "conn.cursor().callproc('pg_sleep', (30,))",
    "named cursor": f"cur = conn.cursor('slow', withhold=True); cur.execute('{LONG}')",
    "copy": f"conn.cursor().copy_expert('copy ({LONG}) to stdout', sys.stderr)",
    "deadline": f"within(conn.deadline(20), '{LONG}')",
    "block": f"within(conn.exclusive(), '{LONG}')",
}


class Program:
    """A child process that runs some lines and prints its progress."""

    def __init__(self, dsn: str, lines: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + lines],
            env={"DSN": dsn, "PYTHONPATH": ":".join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Return the next line; an empty one at the end."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self._process.send_signal(number)

    def ends(self) -> int:
        """Wait for the end and return the exit status."""
        return self._process.wait(10)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def run(dsn: str) -> Iterator[Callable[..., Program]]:
    """Start children; they are ended after the test."""
    made: list[Program] = []

    def started(lines: str, dsn: str = dsn) -> Program:
        made.append(Program(dsn, lines))
        return made[-1]

    yield started
    for program in made:
        program.close()


@pytest.fixture
def observer(dsn: str) -> Iterator[Observer]:
    made = Observer(dsn)
    yield made
    made.close()


def busy(observer: Observer, pid: int) -> None:
    until(lambda: observer.is_busy(pid), f"session {pid} is busy")


def idle(observer: Observer, pid: int) -> None:
    until(lambda: not observer.is_busy(pid), f"session {pid} is idle")


def interrupting(name: str, error: str = "KeyboardInterrupt") -> str:
    return INTERRUPTED.format(statement=STATEMENTS[name], error=error)


@pytest.mark.parametrize("name", STATEMENTS)
def test_ctrl_c_stops_the_query_and_keeps_the_connection(
    run: Any, observer: Observer, name: str
) -> None:
    program = run(f"conn = connect()\n{interrupting(name)}\nanswer(conn)")
    pid = int(program.says())
    busy(observer, pid)

    began = time.monotonic()
    program.interrupt()
    said = program.says()

    assert said == "interrupted"
    assert time.monotonic() - began < SOON
    assert program.says() == "7"
    assert program.ends() == 0


def test_ctrl_c_ends_a_program_that_does_not_expect_it(run: Any, observer: Observer) -> None:
    program = run(f"conn = connect()\n{STATEMENTS['execute']}")
    pid = int(program.says())
    busy(observer, pid)

    program.interrupt()

    assert program.ends() == -signal.SIGINT
    until(lambda: not observer.exists(pid), "its session has ended")


def test_interrupted_transaction_takes_only_a_rollback(run: Any, observer: Observer) -> None:
    program = run(
        "conn = connect()\n"
        "conn.autocommit = False\n"
        "conn.cursor().execute('select 1')\n"
        f"{interrupting('execute')}\n"
        "try:\n"
        "    conn.commit()\n"
        "except greenpg.errors.InFailedSqlTransaction:\n"
        "    say('refused')\n"
        "conn.rollback()\n"
        "answer(conn)"
    )
    busy(observer, int(program.says()))

    program.interrupt()

    assert [program.says() for _ in range(3)] == ["interrupted", "refused", "7"]


def test_exception_of_any_signal_handler_interrupts(run: Any, observer: Observer) -> None:
    """As celery's soft time limit does."""
    program = run(
        "class Limit(Exception): pass\n"
        "def handler(number, frame): raise Limit\n"
        "signal.signal(signal.SIGUSR1, handler)\n"
        f"conn = connect()\n{interrupting('execute', 'Limit')}\nanswer(conn)"
    )
    busy(observer, int(program.says()))

    program.interrupt(signal.SIGUSR1)

    assert [program.says() for _ in range(2)] == ["interrupted", "7"]


def test_handler_that_raises_nothing_interrupts_nothing(run: Any, observer: Observer) -> None:
    program = run(
        "signal.signal(signal.SIGUSR1, lambda number, frame: say('handled'))\n"
        "conn = connect()\nconn.cursor().execute('select pg_sleep(0.5)')\nanswer(conn)"
    )
    busy(observer, int(program.says()))

    program.interrupt(signal.SIGUSR1)

    assert [program.says() for _ in range(2)] == ["handled", "7"]


def test_query_of_another_thread_goes_on(run: Any, observer: Observer) -> None:
    program = run(
        "conn = connect()\n"
        "query = threading.Thread(target=conn.cursor().execute, args=('select pg_sleep(1)',))\n"
        "query.start()\n"
        "try:\n"
        "    query.join()\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
        "query.join()\n"
        "answer(conn)"
    )
    pid = int(program.says())
    busy(observer, pid)

    program.interrupt()

    assert program.says() == "interrupted"
    assert observer.is_busy(pid)
    assert program.says() == "7"


def test_ctrl_c_while_waiting_for_the_connection(run: Any, observer: Observer) -> None:
    program = run(
        "conn = connect()\n"
        f"query = threading.Thread(target=cancelled, args=(conn, '{LONG}'))\n"
        "query.start()\n"
        "while not conn.exclusive().locked():\n"
        "    time.sleep(0.001)\n"
        "try:\n"
        "    say('waiting')\n"
        "    conn.cursor().execute('select 1')\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
        "conn.cancel()\n"
        "query.join()\n"
        "answer(conn)"
    )
    busy(observer, int(program.says()))

    assert program.says() == "waiting"
    program.interrupt()

    assert [program.says() for _ in range(2)] == ["interrupted", "7"]


def test_second_ctrl_c_does_not_wait_for_a_frozen_server(
    run: Any, observer: Observer, proxy: Any
) -> None:
    program = run(f"conn = connect()\n{interrupting('execute')}\nsay(conn.closed > 0)", proxy.dsn)
    pid = int(program.says())
    busy(observer, pid)
    proxy.stall()
    connections = proxy.accepted()
    program.interrupt()
    until(lambda: proxy.accepted() > connections, "the request to cancel is under way")

    began = time.monotonic()
    program.interrupt()

    assert [program.says() for _ in range(2)] == ["interrupted", "True"]
    assert time.monotonic() - began < SOON
    observer.terminate(pid)


def test_ctrl_c_while_connecting(run: Any, proxy: Any) -> None:
    program = run(
        "before = os.listdir('/dev/fd')\n"
        "say('connecting')\n"
        "try:\n"
        "    connect()\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted', len(os.listdir('/dev/fd')) - len(before))",
        proxy.dsn,
    )
    proxy.stall()
    assert program.says() == "connecting"
    until(lambda: proxy.links() == 1, "it connects")

    program.interrupt()

    assert program.says() == "interrupted 0"


class SkippingNew(psycopg2.extensions.connection):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return psycopg2.extensions.connection.__new__(cls, *args, **kwargs)


class SkippingInit(psycopg2.extensions.connection):
    def __init__(self, dsn: str) -> None:
        psycopg2.extensions.connection.__init__(self, dsn)


class SkippingBoth(SkippingNew, SkippingInit):
    pass


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("factory", [None, SkippingNew, SkippingInit, SkippingBoth])
def test_ctrl_c_before_a_connect_waits_leaves_no_socket(dsn: str, factory: Any, hosts: int) -> None:
    target = make_dsn(dsn, host=",".join([parse_dsn(dsn)["host"]] * hosts))

    def strike(frame: Any, event: str, _arg: Any) -> None:
        if event == "call" and frame.f_code is wait_callback.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    before = os.listdir("/dev/fd")
    sys.setprofile(strike)

    with pytest.raises(KeyboardInterrupt) as caught:  # its traceback keeps all open objects
        greenpg.connect(target, factory, backend="threads")

    assert os.listdir("/dev/fd") == before, caught


def test_ctrl_c_ends_a_wait_for_the_pools_lock(run: Any) -> None:
    program = run(
        "pool = greenpg.ConnectionPool(os.environ['DSN'], backend='threads')\n"
        "pool.wait()\n"
        "main, taken, over = threading.get_ident(), threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with pool._pool.performer.lock:\n"
        "        taken.set()\n"
        "        while sys._current_frames()[main].f_code.co_name != 'lend':\n"
        "            time.sleep(0.001)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        over.wait()\n"
        "threading.Thread(target=hold, daemon=True).start()\n"
        "taken.wait()\n"
        "try:\n"
        "    pool.getconn()\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
        "over.set()\n"
        "with pool.connection() as conn:\n"
        "    answer(conn)\n"
        "pool.close()"
    )

    assert [program.says() for _ in range(2)] == ["interrupted", "7"]
    assert program.ends() == 0
