"""A forked child: its copies of green threads read nothing of the parent's and end no session."""

from __future__ import annotations

import gc
import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from posix import close, read, waitpid, write  # a monkey-patch replaces those of os
from typing import Any, Final

from greenpg.backend import READ
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, limit, needs, over_psycopg

from ._steps import ask, spawn_busy

CHILD_SECONDS: Final = 12
CONNECTIONS: Final = 4
QUERIES: Final = 300
SLOW: Final = "select 7 from pg_sleep(0.5)"


class Child:
    """A fork that calls a function, whose result the parent gets as JSON."""

    def __init__(self, ctx: Context, fn: Callable[[], object]) -> None:
        self._backend = ctx.backend
        self._reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: ours only watches
            self._pid = ctx.description.fork()
        if self._pid == 0:
            _be_a_child(fn, writing)
        close(writing)

    def result(self) -> Any:
        """Wait for the end, with other tasks running, and return what the function did."""
        said = b""
        waiter = self._backend.waiter()
        try:
            while not said.endswith(b"\n"):
                assert waiter.wait(self._reading, READ, CHILD_SECONDS + 5), "the child hangs"
                chunk = read(self._reading, 65536)
                assert chunk, f"the child ended with status {self._status()}"
                said += chunk
        finally:
            waiter.close()
            close(self._reading)
        self._status()
        return json.loads(said)

    def _status(self) -> int:
        with suppress(ChildProcessError):  # the loop has taken the status
            while True:
                pid, status = waitpid(self._pid, os.WNOHANG)
                if pid:
                    return status
                self._backend.sleep(0.005)
        return 0


def _be_a_child(fn: Callable[[], object], writing: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CHILD_SECONDS)
    try:
        result = fn()
    except BaseException:
        result = {"error": traceback.format_exc()}
    finally:
        write(writing, json.dumps(result).encode() + b"\n")
        os._exit(0)


class Load:
    """Tasks that ask for numbers, two for each connection, and check what they get."""

    def __init__(self, ctx: Context, dsn: str) -> None:
        self.wrong: list[str] = []
        self.errors: list[BaseException] = []
        self.queries = 0
        self.stopped = False
        self._ctx = ctx
        self.conns = [ctx.connect(dsn, autocommit=True) for _ in range(CONNECTIONS)]
        self.pids = [conn.info.backend_pid for conn in self.conns]
        self.jobs = [ctx.spawn(self._ask, conn) for conn in self.conns * 2]

    def _ask(self, conn: Any) -> None:
        number = 0
        while not self.stopped:
            number += 1
            text = f"{os.getpid()} {id(conn)} {number}"
            try:
                row = ask(conn, "select %s from pg_sleep(0.002)", text)
            except Exception as error:
                self.errors.append(error)
                return
            self.queries += 1
            if row != text:
                self.wrong.append(f"asked {text}, got {row}")

    def wait_for(self, queries: float) -> None:
        self._ctx.wait_until(lambda: self.queries > queries or self.errors, f"{queries} queries")

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        for job in self.jobs:
            job.join()


@limit(60)
@each("plain", "tls")
@over_psycopg()
def test_fork_under_load(ctx: Context, case: str) -> None:
    with Load(ctx, ctx.proxy(tls=True).dsn if case == "tls" else ctx.dsn) as load:
        for number in range(4):
            told = Child(ctx, lambda: _live_on(ctx, load)).result()

            assert told == {"wrong": [], "usable": 0, "own": 7}
            load.wait_for(QUERIES * (number + 1) / 4)

    assert load.wrong == []
    assert load.errors == []
    assert all(ctx.server.exists(pid) for pid in load.pids)


def _live_on(ctx: Context, load: Load) -> dict[str, Any]:
    """Let the copies of the parent's tasks run, then use and end what was inherited."""
    ctx.backend.sleep(0.1)
    usable = sum(_works(ctx, conn) for conn in load.conns)
    for conn in load.conns:
        with suppress(ctx.driver.error):
            conn.close()
    return {"wrong": load.wrong, "usable": usable, "own": _own_connection(ctx)}


def _works(ctx: Context, conn: Any) -> bool:
    try:
        conn.cursor().execute("select 1")
    except ctx.driver.error:
        return False
    return True


def _own_connection(ctx: Context) -> Any:
    with closing(ctx.driver.connect(ctx.dsn, backend=ctx.backend)) as conn:
        return ask(conn, "select 7 from pg_sleep(0.01)")


@each("used", "closed", "lost", "left alone")
@over_psycopg()
def test_child_ends_no_session(ctx: Context, case: str) -> None:
    conns = [ctx.connect(autocommit=True) for _ in range(3)]
    pids = [conn.info.backend_pid for conn in conns]

    def act() -> list[bool]:
        if case == "used":
            return [_works(ctx, conn) for conn in conns]
        if case == "closed":
            for conn in conns:
                conn.close()
        elif case == "lost":
            conns.clear()
            ctx._connections.clear()
            gc.collect()
        return []

    assert Child(ctx, act).result() in ([], [False] * 3)
    assert all(ctx.server.exists(pid) for pid in pids)
    assert all(_works(ctx, conn) for conn in conns)


@each("cancel", "close", "query")
@over_psycopg()
def test_child_leaves_a_running_query_alone(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    query = spawn_busy(ctx, conn, ask, conn, SLOW)
    acts = {"cancel": conn.cancel, "close": conn.close, "query": lambda: ask(conn)}

    def act() -> bool:
        with suppress(ctx.driver.error):
            acts[case]()
        ctx.backend.sleep(0.05)
        return True

    assert Child(ctx, act).result() is True
    assert query.result() == 7
    assert _works(ctx, conn)


@needs("kill")
@each("kill", "timeout")
@over_psycopg()
def test_interrupt_in_the_child_cancels_nothing(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    query = spawn_busy(ctx, conn, ask, conn, SLOW)

    def interrupt() -> bool:
        if case == "kill":
            query.kill()
        else:
            with suppress(ctx.driver.error), conn.deadline(0.02):
                conn.cursor().execute("select 1")
        query.join()
        return True

    assert Child(ctx, interrupt).result() is True
    assert query.result() == 7


@over_psycopg()
def test_child_can_fork_again(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)

    def child() -> list[Any]:
        grandchild = Child(ctx, own) if ctx.description.forks_again() else None
        return [*own(), grandchild and grandchild.result()]

    def own() -> list[Any]:
        return [_works(ctx, conn), _own_connection(ctx)]

    said = Child(ctx, child).result()
    assert said == [False, 7, [False, 7] if ctx.description.forks_again() else None], said
    assert _works(ctx, conn)
