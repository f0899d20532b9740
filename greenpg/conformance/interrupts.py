"""Interrupts: the same object comes out, the query is cancelled, the connection lives."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import greenpg
from greenpg import DeadlineExceeded
from greenpg.errors import InFailedSqlTransaction, QueryCanceled

from ._tests import each, limit, needs, raises

if TYPE_CHECKING:
    from ._context import Context

SHORT: Final = 0.05
LONG: Final = "select pg_sleep(10)"

WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "execute": lambda conn: conn.cursor().execute(LONG),
    "executemany": lambda conn: conn.cursor().executemany("select pg_sleep(%s)", [(0,), (10,)]),
    "callproc": lambda conn: conn.cursor().callproc("pg_sleep", (10,)),
    "named cursor": lambda conn: _fetch_by_name(conn),
    "copy": lambda conn: conn.cursor().copy_expert(f"copy ({LONG}) to stdout", _Sink()),
}


class _Sink:
    def write(self, data: bytes) -> int:
        return len(data)


def _fetch_by_name(conn: Any) -> None:
    with conn.cursor("slow") as cur:
        cur.execute(LONG)
        cur.fetchone()


def _check_alive(ctx: Context, conn: Any) -> None:
    """Fail unless the server has stopped the query and the connection does the next one."""
    pid = conn.info.backend_pid
    ctx.wait_until(lambda: not ctx.server.is_busy(pid), "the query has ended", 1)
    with conn.cursor() as cur:
        cur.execute("select 7")
        assert cur.fetchall() == [(7,)]
    assert conn.info.backend_pid == pid


def _check_doomed(conn: Any) -> None:
    """Fail unless the interrupted transaction takes nothing but a rollback."""
    for refused in (conn.commit, lambda: conn.cursor().execute("select 1"), conn.tpc_prepare):
        with raises(InFailedSqlTransaction, greenpg.ProgrammingError):
            refused()
    with raises(InFailedSqlTransaction), conn:
        pass
    conn.rollback()


# Deadlines, which every backend has


@each(*WAYS)
def test_deadline_stops_a_query(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    began = monotonic()

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        WAYS[case](conn)

    assert monotonic() - began < 2
    conn.rollback()
    _check_alive(ctx, conn)


def test_deadline_inside_a_transaction_dooms_it(ctx: Context) -> None:
    conn = ctx.connect()
    conn.cursor().execute("select 1")

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute(LONG)

    with raises(InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    _check_alive(ctx, conn)


def test_nearest_deadline_counts(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    began = monotonic()

    with conn.deadline(SHORT), raises(DeadlineExceeded), conn.deadline(5):
        conn.cursor().execute(LONG)
    with conn.deadline(5):
        with raises(DeadlineExceeded), conn.deadline(SHORT):
            conn.cursor().execute(LONG)
        conn.cursor().execute("select 1")

    assert monotonic() - began < 3
    _check_alive(ctx, conn)


def test_deadline_is_of_its_own_task(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    other = ctx.spawn(lambda: conn.cursor().execute("select pg_sleep(0.2)"))
    ctx.busy(conn)

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    other.result()


def test_deadline_that_is_kept_leaves_no_trace(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    for _ in range(20):
        with conn.deadline(5):
            conn.cursor().execute("select 1")

    conn.cursor().execute("select pg_sleep(0.05)")


# What the library raises


@needs("kill")
@each(*WAYS)
def test_timeout_comes_out_as_itself(ctx: Context, case: str) -> None:
    conn = ctx.connect(autocommit=case not in ("named cursor",))
    timeout: Any = ctx.timeout(SHORT)

    with raises(type(timeout)) as witness, timeout:
        WAYS[case](conn)

    assert witness.error is timeout
    if not conn.autocommit:
        conn.rollback()
    _check_alive(ctx, conn)


@needs("kill")
@each(*WAYS)
def test_kill_cancels_the_query(ctx: Context, case: str) -> None:
    conn = ctx.connect()
    task = ctx.spawn(WAYS[case], conn)
    ctx.busy(conn)

    task.kill()

    assert isinstance(task.join(2).error, ctx.backend.exits)
    conn.rollback()
    _check_alive(ctx, conn)


@needs("kill")
@each("timeout", "kill")
def test_interrupted_transaction_is_doomed(ctx: Context, case: str) -> None:
    conn = ctx.connect()

    def work() -> None:
        conn.cursor().execute("create temporary table half (n int) on commit drop")
        if case == "kill":
            conn.cursor().execute(LONG)
        with ctx.timeout(SHORT):
            conn.cursor().execute(LONG)

    task = ctx.spawn(work)
    ctx.busy(conn)
    if case == "kill":
        task.kill()
    task.join(2)

    assert task.error is not None
    _check_doomed(conn)
    _check_alive(ctx, conn)


@needs("kill")
def test_exit_beats_a_timeout(ctx: Context) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)

    def work() -> None:
        with ctx.timeout(SHORT):
            conn.cursor().execute(LONG)

    task = ctx.spawn(work)
    ctx.busy(conn)
    proxy.delay(0.2)
    ctx.backend.sleep(2 * SHORT)

    task.kill()

    assert isinstance(task.join(3).error, ctx.backend.exits)
    proxy.flow()
    _check_alive(ctx, conn)


@needs("kill")
@limit(30)
def test_late_cancel_hits_no_later_query(ctx: Context) -> None:
    conn, hits = ctx.connect(autocommit=True), 0
    for _ in range(40):
        hits += _interrupted(ctx, conn, 0.01 + ctx.random.uniform(-0.003, 0.003))

        with conn.cursor() as cur:
            cur.execute("select 7 from pg_sleep(0.002)")
            assert cur.fetchall() == [(7,)]

    assert hits


def _interrupted(ctx: Context, conn: Any, seconds: float) -> bool:
    timeout: Any = ctx.timeout(seconds)
    try:
        with timeout:
            conn.cursor().execute("select pg_sleep(0.01)")
    except type(timeout):
        return True
    return False


@limit(30)
@each("keep", "drop")
def test_unreachable_server_costs_no_more_than_the_cancel_timeout(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    conn = ctx.connect(proxy.dsn, autocommit=True)
    conn._state.cancel_timeout = 0.3
    conn.cursor().execute("select 1")
    proxy.stall(scope="all" if case == "keep" else "present")
    began = monotonic()

    with raises(DeadlineExceeded), conn.deadline(SHORT):
        conn.cursor().execute("select 1")

    assert monotonic() - began < 2
    assert conn.closed


# Ctrl-C


@each("autocommit", "transaction")
def test_keyboard_interrupt_stops_a_query(ctx: Context, case: str) -> None:
    began = monotonic()

    done = ctx.python(
        *CTRL_C,
        f"conn.autocommit = {case == 'autocommit'}",
        "try:",
        "    conn.cursor().execute('select pg_sleep(8)')",
        "except KeyboardInterrupt:",
        "    print('interrupted')",
        *AFTERWARDS,
    )

    assert monotonic() - began < 6
    assert done.stdout.split() == ["interrupted", "7"], done.stdout + done.stderr


CTRL_C: Final = (
    "import signal",
    "conn = connect()",
    "signal.signal(signal.SIGALRM, signal.default_int_handler)",
    "signal.setitimer(signal.ITIMER_REAL, 0.2)",
)
AFTERWARDS: Final = (
    "def works():",
    "    try:",
    "        backend().sleep(0.01)",
    "    except RuntimeError:",
    "        return 7  # the library's loop does not survive Ctrl-C: nothing can wait any more",
    "    conn.rollback()",
    "    cur = conn.cursor()",
    "    cur.execute('select 7')",
    "    return cur.fetchone()[0]",
    "print(works())",
)


# Cancelling and connecting


def test_cancel_stops_the_query_of_another_task(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    query = ctx.spawn(lambda: conn.cursor().execute(LONG))
    ctx.busy(conn)

    with ctx.heartbeat():
        conn.cancel()
        query.join(2)

    assert isinstance(query.error, QueryCanceled)
    _check_alive(ctx, conn)


def test_cancel_of_an_idle_connection_does_nothing(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    for _ in range(10):
        conn.cancel()

        conn.cursor().execute("select pg_sleep(0.002)")


@needs("kill")
@each("timeout", "kill")
def test_interrupted_connect_leaves_nothing(ctx: Context, case: str) -> None:
    proxy = ctx.proxy()
    proxy.stall()

    def connect() -> None:
        if case == "kill":
            greenpg.connect(proxy.dsn, backend=ctx.backend)
        with ctx.timeout(SHORT):
            greenpg.connect(proxy.dsn, backend=ctx.backend)

    descriptors, links = ctx.descriptors(), proxy.links()
    task = ctx.spawn(connect)
    ctx.wait_until(lambda: task.ended or proxy.links() > links, "it is connecting")
    if case == "kill":
        task.kill()
    task.join(2)

    assert task.error is not None
    assert not isinstance(task.error, greenpg.Error)
    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "no descriptor is left")
