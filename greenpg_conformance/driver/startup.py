"""Bad input, and a process that is green by half: one clear error, and the process goes on."""

from __future__ import annotations

import warnings
from contextlib import suppress
from importlib import metadata
from typing import Any, Final
from unittest.mock import patch

import psycopg2
from psycopg2 import extensions as ext

import greenpg
from greenpg.backend import GROUP, as_backend, current
from greenpg.errors import BackendError, ConnectionFactoryWarning
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises
from greenpg_conformance.toolkit.heartbeat import Stalled
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import ask, wait_callback
from .connecting import server_that_closes

WARNING: Final = "warnings.simplefilter('always')\n"
CONNECT: Final = WARNING + 2 * "greenpg.connect({dsn!r}).close()\n"
POOL: Final = f"""{WARNING}
pool = greenpg.ConnectionPool({{dsn!r}}, min_size=1)
pool.putconn(pool.getconn())
pool.close()
"""
CHOICES: Final = f"""{WARNING}
connect().close()
greenpg.use(backend())
greenpg.connect({{dsn!r}}).close()
greenpg.backend.choose(None)
import greenpg.patch
greenpg.patch.patcher(backend())[0]()
"""


def _works(ctx: Context) -> bool:
    return bool(ask(ctx.connect()) == 7)


@each("connection", "pool")
def test_patched_process_without_a_backend_is_warned_once(ctx: Context, case: str) -> None:
    patched = bool(ctx.around.mode.prelude)

    done = ctx.python((CONNECT if case == "connection" else POOL).format(dsn=ctx.dsn))

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NotGreenWarning") == patched
    if patched:
        assert f"from greenpg_{ctx.backend.name} import patch_psycopg" in done.stderr


@each("program", "environment")
def test_process_that_chose_a_backend_is_not_warned(ctx: Context, case: str) -> None:
    lines = CHOICES + CONNECT if case == "program" else CONNECT
    environ = {"GREENPG_BACKEND": "threads"} if case == "environment" else {}

    done = ctx.python(lines.format(dsn=ctx.dsn), **environ)

    assert done.returncode == 0, done.stderr
    assert "NotGreenWarning" not in done.stderr


@needs("hub")
def test_connection_can_be_kept_plainly_blocking(ctx: Context) -> None:
    conn = ctx.connect(backend="threads")

    with raises(Stalled), ctx.heartbeat(0.1):
        conn.cursor().execute("select pg_sleep(0.3)")

    with ctx.heartbeat():
        ctx.connect().cursor().execute("select pg_sleep(0.1)")


def test_unknown_backend_is_named_with_those_that_exist(ctx: Context) -> None:
    for choose in (greenpg.use, lambda name: greenpg.connect(ctx.dsn, backend=name)):
        with raises(BackendError, words="'no such library'") as caught:
            choose("no such library")
        assert "threads" in str(caught.error)

    assert current() is ctx.backend
    assert _works(ctx)


def test_unknown_backend_of_the_environment(ctx: Context) -> None:
    done = ctx.python(CONNECT.format(dsn=ctx.dsn), GREENPG_BACKEND="no such library")

    assert done.returncode
    assert "BackendError" in done.stderr
    assert "'no such library'" in done.stderr


def test_incomplete_backend_is_told_what_it_lacks(ctx: Context) -> None:
    class Half:
        name = "half"
        exits = ()
        capabilities = frozenset[str]()

    with raises(BackendError, words="spawn") as caught:
        as_backend(Half())  # type: ignore[arg-type]  # the mistake
    with raises(BackendError, words="class"):
        as_backend(Half)  # type: ignore[arg-type]  # the mistake

    assert "half" in str(caught.error)
    assert _works(ctx)


def test_missing_library_is_named(ctx: Context) -> None:
    point = metadata.EntryPoint("absent", "greenpg_no_such_library:backend", GROUP)

    with (
        patch.object(metadata, "entry_points", lambda **_: [point]),
        raises(BackendError, words="'absent' cannot be loaded: No module named 'greenpg_no_such"),
    ):
        greenpg.use("absent")

    assert _works(ctx)


@each("no DSN", "unknown option", "bad port")
def test_refused_dsn(ctx: Context, case: str) -> None:
    dsn = {
        "no DSN": "this is no dsn",
        "unknown option": f"{ctx.dsn} greenness=very",
        "bad port": f"{ctx.dsn} port=seventy",
    }[case]
    descriptors = ctx.descriptors()

    with raises(greenpg.ProgrammingError, greenpg.OperationalError):
        greenpg.connect(dsn)

    assert ctx.descriptors() == descriptors
    assert _works(ctx)


@each("nobody listens", "no such database", "no such name")
def test_failed_connection_leaves_nothing(ctx: Context, case: str) -> None:
    failures: dict[str, dict[str, Any]] = {
        "nobody listens": {"host": "127.0.0.1", "hostaddr": "127.0.0.1", "port": 1},
        "no such database": {"dbname": "no such database"},
        "no such name": {"host": "no host has this name", "hostaddr": ""},
    }
    descriptors = ctx.descriptors()

    with ctx.heartbeat(1.0), raises(greenpg.OperationalError):
        greenpg.connect(ctx.dsn, **failures[case])

    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "no descriptor is left")
    assert _works(ctx)


@each("at once", "after the request", "with garbage", "after SSL is refused")
def test_server_that_closes_during_start_up(ctx: Context, case: str) -> None:
    answers = {
        "at once": None,
        "after the request": b"",
        "with garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "after SSL is refused": b"N",
    }
    watch = Stopwatch()
    with server_that_closes(ctx, answers[case]) as port, ctx.heartbeat():
        dsn = f"host=127.0.0.1 port={port} user=nobody dbname=none"
        with raises(greenpg.OperationalError):
            greenpg.connect(dsn)

    assert watch.seconds() < 5
    assert _works(ctx)


def test_wait_callback_that_returns_early(ctx: Context) -> None:
    conn, calls = ctx.connect(), list[Any]()

    with wait_callback(calls.append), raises(psycopg2.Error):
        conn.cursor().execute("select pg_sleep(0.05)")

    assert calls == [conn]
    with suppress(psycopg2.Error):
        conn.rollback()
    assert _works(ctx)


def test_wait_callback_that_raises_closes_the_connection(ctx: Context) -> None:
    conn = ctx.connect()

    with wait_callback(lambda _: 1 / 0), raises(ZeroDivisionError):
        conn.cursor().execute("select 1")

    assert conn.closed
    with raises(greenpg.InterfaceError):
        conn.cursor().execute("select 1")
    assert _works(ctx)


def test_wait_callback_of_ones_own_drives_the_waits(ctx: Context) -> None:
    conn, calls = ctx.connect(), list[Any]()

    def callback(waiting: Any) -> None:
        calls.append(waiting)
        while waiting.poll() != ext.POLL_OK:
            ctx.backend.sleep(0.001)

    with wait_callback(callback):
        conn.cursor().execute("select 1")
        found = greenpg.get_wait_callback()

    assert calls
    assert set(calls) == {conn}
    assert found is callback
    assert greenpg.get_wait_callback() is not callback
    assert _works(ctx)


def test_factory_that_is_a_function_gives_green_queries(ctx: Context) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        conn = greenpg.connect(ctx.dsn, lambda *args: psycopg2._psycopg.connection(*args))

    with ctx.heartbeat():
        assert ask(conn, "select 7 from pg_sleep(0.1)") == 7
    assert [warning.category for warning in caught] == [ConnectionFactoryWarning]
    conn.close()


# libpq out of reach

UNREACHABLE: Final = """
import ctypes
from greenpg_conformance.toolkit.heartbeat import heartbeat
def refuse(*_): raise OSError('a static build')
import greenpg._protocol.libpq
ctypes.PyDLL = refuse
greenpg._protocol.libpq.libpq.__init__()
conn = connect()
cur = conn.cursor()
"""
GREEN: Final = """
with heartbeat(backend()):
    cur.execute('select 7 from pg_sleep(0.2)')
    print(cur.fetchone()[0])
conn.commit()
"""
FEATURES: Final = """
def feature(name, fn, *args):
    try:
        fn(*args)
    except greenpg.errors.FeatureUnavailable as error:
        print(name, error)
    conn.rollback()
    conn.cursor().execute('select 7')
    conn.commit()
sink = open('/dev/null', 'wb')
feature('copy', cur.copy_expert, 'copy (select 1) to stdout', sink)
feature('large object', lambda: conn.lobject(0, 'wb').write(b'seven'))
feature('pipeline', lambda: conn.pipeline().__enter__())
"""
INTERRUPTED: Final = """
try:
    with conn.deadline(0.1):
        cur.execute('select pg_sleep(5)')
except greenpg.DeadlineExceeded:
    print('exceeded')
if not conn.closed:
    conn.rollback()
    conn.cursor().execute('select 7')
connect().cursor().execute('select 7')
"""


def _without_libpq(ctx: Context, program: str) -> str:
    done = ctx.python(UNREACHABLE, program)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_queries_are_green_without_libpq(ctx: Context) -> None:
    assert _without_libpq(ctx, GREEN).split() == ["7"]


def test_features_without_libpq_say_so(ctx: Context) -> None:
    told = _without_libpq(ctx, FEATURES).splitlines()

    for name, said in zip(("copy", "large", "pipeline"), told, strict=True):
        assert said.startswith(name)
        assert "libpq cannot be reached: a static build" in said, said


def test_interrupt_without_libpq_leaves_the_process_usable(ctx: Context) -> None:
    assert _without_libpq(ctx, INTERRUPTED).split() == ["exceeded"]
