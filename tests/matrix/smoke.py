"""python smoke.py gevent|eventlet: greenpg's main features, on the server of GREENPG_DSN.

It prints one line for each feature that fails, and a last line with the numbers and versions.
"""

import faulthandler
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from io import StringIO
from typing import Any, Final

LIBRARY: Final = sys.argv[1]
if LIBRARY == "gevent":
    importlib.import_module("gevent.monkey").patch_all()
else:
    importlib.import_module("eventlet").monkey_patch()
library: Final[Any] = importlib.import_module(LIBRARY)
plugin: Final[Any] = importlib.import_module(f"greenpg_{LIBRARY}")
plugin.patch_psycopg()
RELEASE: Final = tuple(map(int, version(LIBRARY).split(".")[:2]))
# psycopg 3.3 derives from queue.Queue[T], which eventlet's Queue has allowed since then
HAS_PSYCOPG3: Final = LIBRARY == "gevent" or RELEASE >= (0, 40)
if HAS_PSYCOPG3:
    plugin.patch_psycopg3()
    import psycopg  # after the patches, as programs do

import psycopg2  # noqa: E402
import psycopg2.extras  # noqa: E402
import sqlalchemy  # noqa: E402

import greenpg  # noqa: E402
from greenpg.metrics import PoolCollector  # noqa: E402

DSN: Final = os.environ["GREENPG_DSN"]
SECONDS: Final = 100
LATE: Final = 20.0  # seconds for what comes at once
VERSIONS: Final = ("psycopg2-binary", "psycopg", "sqlalchemy", LIBRARY, "greenlet")
backend: Final = plugin.backend


def connected() -> Any:
    conn = psycopg2.connect(DSN)
    conn.autocommit = True
    return closing(conn)


def one(conn: Any, query: str, *args: object) -> Any:
    with conn.cursor() as cur:
        cur.execute(query, args)
        return cur.fetchone()[0]


def busy(conn: Any) -> None:
    """Wait until the server runs a statement of this connection."""
    query = "select state = 'active' from pg_stat_activity where pid = %s"
    with connected() as observer:
        while not one(observer, query, conn.info.backend_pid):
            backend.pause()


def beside(conn: Any, act: Any, meanwhile: Any) -> None:
    """Run `meanwhile` in this task while another one waits in `act` on `conn`; both must end."""
    task = backend.spawn(act)
    busy(conn)
    meanwhile()
    assert task.join(LATE)


def others_run_while_a_task_waits() -> None:
    with connected() as conn, connected() as other:
        lock = "select pg_advisory_{}lock(7)".format
        one(conn, lock(""))
        beside(other, lambda: one(other, lock("")), lambda: one(conn, lock("un")))


def tasks_share_a_connection() -> None:
    got: list[int] = []
    with connected() as conn:
        tasks = [backend.spawn(lambda n=n: got.append(one(conn, "select %s", n))) for n in range(9)]
        assert all(task.join(LATE) for task in tasks)
    assert sorted(got) == [*range(9)]


def timeout_cancels_the_query() -> None:
    with connected() as conn:
        try:
            with library.Timeout(0.1):
                one(conn, "select pg_sleep(60)")
        except library.Timeout:
            assert one(conn, "select 1") == 1
            return
    raise AssertionError("no timeout")


def deadline_cancels_the_query() -> None:
    with connected() as conn:
        try:
            with conn.deadline(0.1):
                one(conn, "select pg_sleep(60)")
        except greenpg.DeadlineExceeded:
            assert one(conn, "select 1") == 1
            return
    raise AssertionError("no DeadlineExceeded")


def kill_leaves_the_connection_usable() -> None:
    with connected() as conn:
        task = backend.spawn(one, conn, "select pg_sleep(60)")
        busy(conn)
        task.kill()
        assert task.join(LATE)
        assert one(conn, "select 1") == 1


def close_from_another_task() -> None:
    with connected() as conn:

        def query() -> None:
            try:
                one(conn, "select pg_sleep(60)")
            except psycopg2.Error:
                return

        beside(conn, query, conn.close)
        assert conn.closed


def transactions() -> None:
    with closing(psycopg2.connect(DSN)) as conn:
        with conn, conn.cursor() as cur:
            cur.execute("create temp table kept (n int)")
        try:
            with conn, conn.cursor() as cur:
                cur.execute("insert into kept values (1)")
                raise LookupError
        except LookupError:
            assert one(conn, "select count(*) from kept") == 0


def copy_in_and_out() -> None:
    with connected() as conn, conn.cursor() as cur:
        cur.execute("create temp table copied (n int, t text)")
        cur.copy_expert("copy copied from stdin", StringIO("1\tone\n2\ttwo\n"))
        with cur.copy("copy copied to stdout") as copy:
            assert [*copy.rows()] == [("1", "one"), ("2", "two")]


def large_object() -> None:
    with closing(psycopg2.connect(DSN)) as conn:
        made = conn.lobject(0, "wb")
        made.write(b"large" * 1000)
        made.close()
        assert conn.lobject(made.oid, "rb").read() == b"large" * 1000
        conn.rollback()


def named_cursor() -> None:
    with closing(psycopg2.connect(DSN)) as conn, conn.cursor("named") as cur:
        cur.execute("select generate_series(1, 3000)")
        assert sum(row[0] for row in cur) == 4_501_500


def stream() -> None:
    with connected() as conn, conn.cursor() as cur:
        rows = cur.stream("select generate_series(1, %s)", (5000,))
        assert sum(row[0] for row in rows) == 12_502_500


def pipeline() -> None:
    with connected() as conn, conn.pipeline() as pipe:
        results = [pipe.execute("select %s::int", (n,)) for n in range(20)]
        assert [result.fetchone()[0] for result in results] == [*range(20)]


def execute_many() -> None:
    with closing(psycopg2.connect(DSN)) as conn, conn.cursor() as cur:
        cur.execute("create temp table many (n int, m int)")
        cur.executemany("insert into many values (%s, %s)", [(n, n) for n in range(300)])
        psycopg2.extras.execute_values(cur, "insert into many values %s", [(1, 2)] * 300)
        assert one(conn, "select count(*) from many") == 600


def notifications() -> None:
    with connected() as conn, connected() as other, conn.listen("smoke", timeout=LATE) as notes:
        one(other, "select pg_notify('smoke', 'heard')")
        assert next(iter(notes)).payload == "heard"


def listener() -> None:
    with (
        connected() as conn,
        greenpg.Listener(DSN, backend=backend) as made,
        made.subscribe("smoke") as notes,
    ):
        one(conn, "select pg_notify('smoke', 'heard')")
        item = next(iter(notes))
        assert not isinstance(item, greenpg.Missed)
        assert item.payload == "heard"


def pool_lends_and_reports() -> None:
    with plugin.ConnectionPool(DSN, min_size=1, max_size=2, timeout=LATE) as pool:

        def work() -> None:
            with pool.connection() as conn:
                one(conn, "select 1")

        tasks = [backend.spawn(work) for _ in range(20)]
        assert all(task.join(LATE) for task in tasks)
        assert pool.get_stats()["requests_num"] == 20
        assert [*PoolCollector(pool).collect()]


def row_factories() -> None:
    with connected() as conn, conn.cursor(cursor_factory=psycopg2.extras.DictCursor) as cur:
        cur.execute("select 1 as n, '{\"a\": 2}'::jsonb as j")
        row = cur.fetchone()
        assert (row["n"], row["j"]) == (1, {"a": 2})


def psycopg3_is_green() -> None:
    with psycopg.connect(DSN, autocommit=True) as conn, psycopg.connect(DSN) as other:
        conn.execute("select pg_advisory_lock(8)")
        beside(
            other,
            lambda: other.execute("select pg_advisory_lock(8)"),
            lambda: conn.execute("select pg_advisory_unlock(8)"),
        )


def psycopg3_survives_a_timeout() -> None:
    with psycopg.connect(DSN, autocommit=True) as conn:
        try:
            with library.Timeout(0.1):
                conn.execute("select pg_sleep(60)")
        except library.Timeout:
            row = conn.execute("select 1").fetchone()
            assert row == (1,)
            return
    raise AssertionError("no timeout")


def psycopg3_pool() -> None:
    with (
        plugin.ConnectionPool(DSN, min_size=1, max_size=1, driver="psycopg") as pool,
        pool.connection() as conn,
    ):
        assert conn.execute("select 1").fetchone() == (1,)


def engine_answers(name: str, driver: Any) -> None:
    url = f"postgresql+{name}://"
    engine = sqlalchemy.create_engine(url, creator=lambda: driver.connect(DSN))
    with engine.connect() as conn:
        assert conn.execute(sqlalchemy.text("select 6 * 7")).scalar() == 42
    engine.dispose()


def sqlalchemy_engine() -> None:
    engine_answers("greenpg", psycopg2)


def psycopg3_sqlalchemy_engine() -> None:
    engine_answers("greenpg3", psycopg)


FEATURES: Final = (
    others_run_while_a_task_waits, tasks_share_a_connection, timeout_cancels_the_query,
    deadline_cancels_the_query, kill_leaves_the_connection_usable, close_from_another_task,
    transactions, copy_in_and_out, large_object, named_cursor, stream, pipeline, execute_many,
    notifications, listener, pool_lends_and_reports, row_factories, sqlalchemy_engine,
)  # fmt: skip
OF_PSYCOPG3: Final = (
    psycopg3_is_green, psycopg3_survives_a_timeout, psycopg3_pool, psycopg3_sqlalchemy_engine,
)  # fmt: skip


def passes(feature: Callable[[], None]) -> bool:
    try:
        feature()
    except BaseException:  # a library's timeout too
        print(f"FAILED {feature.__name__}\n{traceback.format_exc()}")
        return False
    return True


def main() -> int:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    features = FEATURES + OF_PSYCOPG3 if HAS_PSYCOPG3 else FEATURES
    passed = [passes(feature) for feature in features]
    faulthandler.cancel_dump_traceback_later()
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    python = platform.python_version()
    print(f"{sum(passed)} of {len(passed)} on Python {python}, {versions}")
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
