"""Pools beside servers that restart, follow one another, or stand behind PgBouncer."""

from __future__ import annotations

import itertools
import time

import psycopg
import pytest
from psycopg2.extensions import make_dsn

import greenpg
from greenpg.backend import current
from greenpg.embedded import running
from greenpg.pool import ConnectionPool, PoolSet
from greenpg_conformance.toolkit.machine import Stopwatch
from tests.db.bouncer import bouncing
from tests.db.conftest import until

TASKS = 32
RUNS = itertools.count()


class Load:
    """Tasks that insert rows until stopped; acknowledged rows and errors are kept."""

    def __init__(self, pool, spawn, error, tasks=TASKS):
        self.good = []
        self.errors = []
        self.written = []
        self._pool, self._error = pool, error
        self._over = False
        first = next(RUNS) * 1000  # no two loads write the same rows
        self.jobs = [spawn(self._work, first + number) for number in range(tasks)]

    def _work(self, number):
        count = 0
        while not self._over:
            count += 1
            try:
                with self._pool.connection() as conn, conn.cursor() as cur:
                    cur.execute("insert into acknowledged values (%s, %s)", (number, count))
            except self._error as error:
                self.errors.append(error)
            else:
                self.written.append((number, count))
                self.good.append(time.monotonic())
            current().sleep(0.002)

    def stop(self):
        self._over = True
        for job in self.jobs:
            job.result()


def prepare(dsn):
    conn = greenpg.connect(dsn)
    with conn, conn.cursor() as cur:
        cur.execute("create table acknowledged (task int, number int)")
    conn.close()


def rows(dsn):
    conn = greenpg.connect(dsn)
    with conn, conn.cursor() as cur:
        cur.execute("select task, number from acknowledged")
        found = set(cur.fetchall())
    conn.close()
    return found


@pytest.fixture(scope="module")
def ours():
    """A server that tests may halt, and start again."""
    with running() as made:
        prepare(made.dsn)
        yield made


@pytest.mark.timeout(45)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_costs_what_is_in_use(ours, spawn, mode, driver):
    pool = ConnectionPool(ours.dsn, driver=driver.__name__, min_size=4, max_size=8, timeout=10)
    load = Load(pool, spawn, driver.Error)
    until(lambda: len(load.good) > 50, "under load")

    ours.halt(mode)
    current().sleep(2)
    ours.resume()
    back, watch = time.monotonic(), Stopwatch()

    until(lambda: load.good[-1] > back, "works again")
    first = watch.seconds()
    load.stop()
    pool.close()
    assert len(load.errors) <= 8, load.errors
    assert first <= 1.0
    assert set(load.written) <= rows(ours.dsn)


@pytest.mark.timeout(60)
def test_writes_move_to_the_promoted_standby(spawn, driver):
    with running() as first:
        prepare(first.dsn)
        second = first.standby()
        try:
            _fail_over(first, second, spawn, driver)
        finally:
            second.stop()


def _fail_over(first, second, spawn, driver):
    synchronous = greenpg.connect(first.dsn)
    synchronous.autocommit = True
    with synchronous.cursor() as cur:  # else an acknowledged write may be on the primary alone
        cur.execute("alter system set synchronous_standby_names = '*'")
        cur.execute("select pg_reload_conf()")
    synchronous.close()
    both = make_dsn(first.dsn, host="127.0.0.1,127.0.0.1", port=f"{first.port},{second.port}")
    pools = PoolSet(both, driver=driver.__name__, min_size=2, max_size=8, timeout=10)
    with pools.replica.connection() as conn, conn.cursor() as cur:
        cur.execute("select pg_is_in_recovery()")
        assert cur.fetchone() == (True,)
    load = Load(pools.primary, spawn, driver.Error)
    until(lambda: len(load.good) > 50, "under load")

    first.halt("immediate")
    admin = greenpg.connect(second.dsn)
    admin.autocommit = True
    with admin.cursor() as cur:
        cur.execute("select pg_promote()")
    admin.close()
    promoted, watch = time.monotonic(), Stopwatch()

    until(lambda: load.good[-1] > promoted, "writes again")
    resumed = watch.seconds()
    load.stop()
    pools.close()
    assert resumed <= 2.0
    assert len(load.errors) <= 8, load.errors
    assert set(load.written) <= rows(second.dsn)


def test_without_replicas_the_primary_serves(dsn, driver):
    with PoolSet(dsn, driver=driver.__name__, min_size=1) as pools:
        for pool in (pools.primary, pools.replica):
            with pool.connection() as conn, conn.cursor() as cur:
                cur.execute("select pg_is_in_recovery()")
                assert cur.fetchone() == (False,)

        assert set(pools.get_stats()) == {"pools.primary", "pools.replica"}


def test_a_session_that_may_not_write_any_more_is_replaced(dsn, driver):
    with PoolSet(dsn, driver=driver.__name__, min_size=1) as pools:
        with pools.primary.connection() as conn, conn.cursor() as cur:
            cur.execute("set default_transaction_read_only = on")
        demoted = conn.info.backend_pid

        with pytest.raises(driver.errors.ReadOnlySqlTransaction):
            _write(pools.primary)

        with pools.primary.connection() as conn:
            assert conn.info.backend_pid != demoted


def _write(pool):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("create table forbidden ()")


@pytest.fixture
def bouncer(dsn, tmp_path):
    with bouncing(dsn, tmp_path) as made:
        yield made


@pytest.mark.timeout(40)
def test_pools_work_through_pgbouncer_and_its_restart(bouncer, spawn, create, driver):
    table = create("(n int)")
    kwargs = {"prepare_threshold": None} if driver is psycopg else {}  # PgBouncer forgets them
    pool = ConnectionPool(
        bouncer.dsn, driver=driver.__name__, kwargs=kwargs, min_size=8, timeout=10
    )
    good: list[float] = []
    errors: list[Exception] = []
    over = current().event()

    def work(number):
        while not over.is_set():
            try:
                with pool.connection() as conn, conn.cursor() as cur:
                    cur.execute(f"insert into {table} values (%s)", (number,))
                    cur.execute("select %s::int", (number,))
                    assert cur.fetchone() == (number,)
            except driver.Error as error:
                errors.append(error)
            else:
                good.append(time.monotonic())
            current().sleep(0.002)

    jobs = [spawn(work, number) for number in range(16)]
    until(lambda: len(good) > 50, "under load")

    bouncer.stop()
    current().sleep(0.3)
    bouncer.start()
    back = time.monotonic()

    until(lambda: good[-1] > back, "works again")
    over.set()
    for job in jobs:
        job.result()
    pool.close()
    assert len(errors) <= 8, errors
