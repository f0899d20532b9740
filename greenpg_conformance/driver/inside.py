"""Code that runs in the middle of an operation and touches the connection it is called from."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from contextlib import contextmanager, suppress
from io import TextIOBase
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import extensions as ext

import greenpg
from greenpg.backend import READ, WRITE
from greenpg_conformance.harness.drivers import PSYCOPG2, Driver
from greenpg_conformance.harness.tests import each, over_psycopg
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import wait_callback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenpg_conformance.harness.context import Context

TOUCHES: Final[dict[str, Callable[[Any], object]]] = {
    "execute": lambda conn: conn.cursor().execute("select 1"),
    "executemany": lambda conn: conn.cursor().executemany("select %s", [(1,)]),
    "callproc": lambda conn: conn.cursor().callproc("version"),
    "commit": lambda conn: conn.commit(),
    "rollback": lambda conn: conn.rollback(),
    "reset": lambda conn: conn.reset(),
    "close": lambda conn: conn.close(),
    "set_client_encoding": lambda conn: conn.set_client_encoding("LATIN1"),
    "set_session": lambda conn: conn.set_session(readonly=True),
    "tpc_begin": lambda conn: conn.tpc_begin("greenpg"),
    "tpc_recover": lambda conn: conn.tpc_recover(),
    "named cursor": lambda conn: conn.cursor("inside").execute("select 1"),
    "extensions.cursor": lambda conn: greenpg.extensions.cursor(conn).execute("select 1"),
    "exclusive": lambda conn: _exclusively(conn),
}


def _exclusively(conn: Any) -> None:
    with conn.exclusive():
        conn.cursor().execute("select 1")


class Touch:
    """Touches a connection and keeps what that raised."""

    def __init__(self, conn: Any, way: str, driver: Driver = PSYCOPG2) -> None:
        self._driver = driver
        self.errors: list[BaseException] = []
        self.calls = 0
        self._conn = conn
        self._touch = TOUCHES[way]

    def __call__(self, *_: object) -> None:
        self.calls += 1
        try:
            self._touch(self._conn)
        except Exception as error:
            self.errors.append(error)

    def check_refused(self, cur: Any) -> None:
        """Fail unless each touch met ProgrammingError, and the query went on."""
        assert cur.fetchall() == [(7,)]
        assert self.calls, "it was never called"
        assert len(self.errors) == self.calls, "one got through"
        assert {type(error) for error in self.errors} == {self._driver.programming}, self.errors
        self._conn.commit()

    def check_allowed(self) -> None:
        """Fail unless each touch was let through, and the connection is closed or works."""
        assert self.calls, "it was never called"
        assert self.errors == []
        if not self._conn.closed:
            try:
                self._conn.rollback()
            except psycopg2.ProgrammingError:  # it has begun a two-phase transaction
                self._conn.tpc_rollback()
            self._conn.cursor().execute("select 1")

    def check_survived(self) -> None:
        """Fail unless what the touches met is psycopg2's, and the connection is closed or works."""
        assert self.calls
        assert all(isinstance(error, self._driver.error) for error in self.errors), self.errors
        if not self._conn.closed:
            self._conn.rollback()
            self._conn.cursor().execute("select 1")


def _touching(ctx: Context, way: str) -> tuple[Touch, Any]:
    conn = ctx.connect()
    return Touch(conn, way, ctx.driver), conn.cursor()


class Quoted:
    """A parameter whose quoting, inside `execute`, calls a function."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __conform__(self, _: object) -> Quoted:
        return self

    def getquoted(self) -> bytes:
        self._call()
        return b"7"


class Litter:
    """Garbage in a cycle that calls a function when it is collected."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._cycle = self

    def __del__(self) -> None:
        self._call()


@each(*TOUCHES, *(f"finalizer: {way}" for way in TOUCHES))
def test_quoting_that_touches_the_connection(ctx: Context, case: str) -> None:
    """Parameters are adapted outside the operation, as in psycopg2."""
    touch, cur = _touching(ctx, case.removeprefix("finalizer: "))

    def collect() -> None:
        Litter(touch)
        gc.collect()

    with suppress(psycopg2.InterfaceError):  # closed by the touch
        cur.execute("select %s", (Quoted(collect if case.startswith("finalizer") else touch),))
        assert cur.fetchall() == [(7,)]

    touch.check_allowed()


@over_psycopg()
def test_finalizers_at_any_moment(ctx: Context) -> None:
    conn, other = ctx.connect(), ctx.connect(autocommit=True)
    touched, ran = (Touch(one, "execute", ctx.driver) for one in (conn, other))
    cur = conn.cursor()

    with _eager_collector():
        for number in range(100):
            Litter(touched)
            Litter(ran)
            cur.execute("select %s", (number,))
            assert cur.fetchall() == [(number,)]

    assert touched.calls
    assert ran.calls
    assert {type(error) for error in touched.errors + ran.errors} <= {ctx.driver.programming}
    conn.commit()
    other.cursor().execute("select 1")


@contextmanager
def _eager_collector() -> Iterator[None]:
    usual = gc.get_threshold()
    gc.set_threshold(2)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@each(*TOUCHES)
def test_wait_callback_that_touches_its_connection(ctx: Context, case: str) -> None:
    touch, cur = _touching(ctx, case)

    def callback(waiting: Any) -> None:
        touch()
        _wait(ctx, waiting)

    with wait_callback(callback):
        cur.execute("select 7")

    touch.check_refused(cur)


def _wait(ctx: Context, conn: Any) -> None:
    waiter = ctx.backend.waiter()
    try:
        while (want := conn.poll()) != ext.POLL_OK:
            waiter.wait(conn.fileno(), READ if want == ext.POLL_READ else WRITE, None)
    finally:
        waiter.close()


@each("execute", "commit", "callproc", "set_client_encoding")
@over_psycopg("execute", "commit")
def test_signal_handler_that_touches_the_connection(ctx: Context, case: str) -> None:
    touch, cur = _touching(ctx, case)

    with _alarm(touch):
        cur.execute("select 7 from pg_sleep(0.4)")

    touch.check_refused(cur)


@each("close", "rollback", "reset")
@over_psycopg("close", "rollback")
def test_signal_handler_that_ends_the_connection(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    touch = Touch(conn, case, ctx.driver)
    watch = Stopwatch()

    with _alarm(touch), suppress(ctx.driver.error):
        conn.cursor().execute("select 7 from pg_sleep(1)")

    assert watch.seconds() < 3
    touch.check_survived()


@contextmanager
def _alarm(handler: Callable[..., object]) -> Iterator[None]:
    usual = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


class Collector(list[str]):
    """Takes the payloads of a connection's notifications, and calls a function for each."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call

    def append(self, note: Any) -> None:
        super().append(note.payload)
        self._call()


@each(*TOUCHES)
def test_collector_of_notifications_that_touches_the_connection(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=True)
    conn.cursor().execute(f"listen {ctx.name}")
    touch = Touch(conn, case)
    conn.notifies = collector = Collector(touch)

    conn.cursor().execute(f"notify {ctx.name}, 'seven'")

    assert collector == ["seven"]
    assert touch.calls == 1
    touch.check_survived()


def test_collector_that_fails_loses_nothing(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    conn.cursor().execute(f"listen {ctx.name}")
    touch = Touch(conn, "commit")

    def fail() -> None:
        touch()
        raise ValueError("this traceback belongs in the log")

    conn.notifies = collector = Collector(fail)
    for number in range(3):
        conn.cursor().execute("select pg_notify(%s, %s)", (ctx.name, str(number)))

    assert collector == ["0", "1", "2"]


@each(*TOUCHES)
def test_typecaster_that_touches_the_connection(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    touch = Touch(conn, case)

    def cast(value: Any, _: object) -> Any:
        touch()
        return value

    cur = conn.cursor("cast")
    ext.register_type(ext.new_type((25,), "TOUCHING", cast), cur)
    cur.execute("select 'seven'::text")
    with suppress(psycopg2.Error):
        assert cur.fetchone() == ("seven",)

    assert touch.calls == 1
    touch.check_survived()


class File(TextIOBase):
    """A file for COPY that touches the connection at each call."""

    def __init__(self, touch: Touch) -> None:
        self._touch = touch
        self._lines = ["7\n", ""]
        self.written = ""

    def read(self, _: int | None = -1, /) -> str:
        self._touch()
        return self._lines.pop(0)

    def write(self, data: str, /) -> int:
        self._touch()
        self.written += data
        return len(data)


@each(*TOUCHES)
def test_file_in_copy_that_touches_the_connection(ctx: Context, case: str) -> None:
    touch, cur = _touching(ctx, case)
    file = File(touch)
    cur.execute("create temporary table numbers (n int)")

    cur.copy_expert("copy numbers from stdin", file)
    cur.copy_expert("copy numbers to stdout", file)

    assert file.written == "7\n"
    cur.execute("select * from numbers")
    touch.check_refused(cur)
