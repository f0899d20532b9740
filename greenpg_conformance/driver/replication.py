"""Replication: a stream that survives interrupts of its consumer, and a follower that finds it.

The plug-in pgoutput serves, which every server has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, groupby
from operator import itemgetter
from typing import Any, Final

import greenpg
from greenpg import Error, InterfaceError, OperationalError
from greenpg.errors import AdminShutdown
from greenpg.extras import LogicalReplicationConnection, StopReplication
from greenpg.replication import follow
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, limit, needs, raises
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import kill_sometime
from .forks import Child

TRANSACTIONS: Final = 200
ROWS: Final = 500
CUTS: Final = 10
INTERRUPTS: Final = 300
WINDOWS: Final = 25
ACTIVE: Final = "select active_pid from pg_replication_slots where slot_name = %s"
_numbers = count()


class Source:
    """A table of numbers whose changes a slot keeps; a row is (transaction, number)."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.name: Final = f"{ctx.name.replace('-', '_')}_{next(_numbers)}"
        self.options: Final = {"proto_version": 1, "publication_names": self.name}
        self.inserting = f"insert into {self.name} select %s, n from generate_series(0, %s) n"
        self.ask = ctx.server.ask
        self.ask(f"create table {self.name} (transaction int, number int)")
        self.ask(f"create publication {self.name} for table {self.name}")
        self.ask("select pg_create_logical_replication_slot(%s, 'pgoutput')", self.name)

    def insert(self, transaction: int, rows: int = 1) -> None:
        """Commit a transaction that inserts so many rows."""
        self.ask(self.inserting, transaction, rows - 1)

    def pid(self) -> Any:
        """Return the process that serves the slot, if one does."""
        return self.ask(ACTIVE, self.name)[0][0]

    def connect(self, dsn: str | None = None, **options: Any) -> Any:
        return self.ctx.connect(dsn, connection_factory=LogicalReplicationConnection, **options)

    def stream(self, conn: Any) -> Any:
        """Return a cursor on which the slot's changes are streaming."""
        cur = conn.cursor()
        cur.start_replication(slot_name=self.name, options=self.options)
        return cur


@contextmanager
def _source(ctx: Context) -> Iterator[Source]:
    source = Source(ctx)
    try:
        yield source
    finally:
        with suppress(Error):
            source.ask("select pg_terminate_backend(%s)", source.pid())
        ctx.wait_until(lambda: source.pid() is None, "the slot is free")
        source.ask("select pg_drop_replication_slot(%s)", source.name)
        source.ask(f"drop publication {source.name}; drop table {source.name}")


def row_of(message: Any) -> tuple[int, int] | None:
    """Return the inserted row; None for a message of another kind."""
    payload = message.payload
    if payload[:1] != b"I":
        return None
    position, columns = 8, list[int]()
    for _ in range(2):
        (size,) = struct.unpack_from(">I", payload, position + 1)
        columns.append(int(payload[position + 5 : position + 5 + size]))
        position += 5 + size
    return columns[0], columns[1]


class Collector:
    """A consumer that keeps the rows, and stops after the last one of a transaction."""

    def __init__(self, last: tuple[int, int]) -> None:
        self.rows: list[tuple[int, int]] = []
        self._last = last

    def __call__(self, message: Any) -> None:
        if row := row_of(message):
            self.rows.append(row)
        message.cursor.send_feedback(flush_lsn=message.data_start)
        if row == self._last:
            raise StopReplication


def _consume(cur: Any, consumer: Callable[[Any], object]) -> None:
    with suppress(StopReplication):
        cur.consume_stream(consumer)


def _asleep(ctx: Context, cur: Any, consumer: Callable[[Any], object] = print) -> Any:
    """Return the job of a consumer that waits."""
    job = ctx.spawn(_consume, cur, consumer)
    ctx.wait_until(lambda: cur._greenpg_stream._input.waiting, "it waits")
    return job


def test_others_run_while_a_flood_is_consumed(ctx: Context) -> None:
    with _source(ctx) as source:
        source.insert(0, 50_000)
        cur = source.stream(source.connect())
        collector = Collector((0, 49_999))

        with ctx.heartbeat():
            _consume(cur, collector)

        assert collector.rows == [(0, number) for number in range(50_000)]
        cur.connection.close()


def test_idle_stream_costs_nothing(ctx: Context) -> None:
    """An idle second costs less than 5 ms, if the server sends nothing."""
    with _source(ctx) as source:
        cur = source.stream(source.connect())
        job = _asleep(ctx, cur)

        costs = [_quiet_cost(ctx, cur)]
        while costs[-1] > ctx.around.idle_cpu + 0.001:  # what spins does so in every window
            assert len(costs) < WINDOWS, costs
            costs.append(_quiet_cost(ctx, cur))

        cur.connection.close()
        with raises(InterfaceError):
            job.result()


def _quiet_cost(ctx: Context, cur: Any) -> float:
    """Return the CPU time of a fifth of a second in which no keepalive message came."""
    while True:
        heard = cur._greenpg_stream.io_time
        cost = ctx.idle_cpu(0.2)
        if cur._greenpg_stream.io_time == heard:
            return cost


@needs("kill")
@limit(60)
@each("timeouts", "kills")
def test_random_interrupts_lose_and_repeat_nothing(ctx: Context, case: str) -> None:
    with _source(ctx) as source:
        cur = source.stream(source.connect())
        collector = Collector((INTERRUPTS, 9))

        for transaction in range(INTERRUPTS):
            source.insert(transaction, 10)
            if case == "timeouts":
                ctx.under_fire(lambda: _consume(cur, collector))
            else:
                kill_sometime(ctx, _consume, cur, collector)
        source.insert(INTERRUPTS, 10)
        _consume(cur, collector)

        expected = [(one, number) for one in range(INTERRUPTS + 1) for number in range(10)]
        assert collector.rows == expected
        cur.connection.close()


@needs("kill")
@limit(60)
def test_random_timeouts_leave_a_stopped_stream_usable_or_closed(ctx: Context) -> None:
    with _source(ctx) as source:
        for number in range(INTERRUPTS // 5):
            source.insert(number, 10)
            cur = source.stream(source.connect())

            ctx.under_fire(cur.stop_replication)

            if not cur.connection.closed:
                cur.stop_replication()
                cur.execute("IDENTIFY_SYSTEM")
                assert len(cur.fetchone()) == 4
                cur.connection.close()
            ctx.wait_until(lambda: source.pid() is None, "the slot is free")


def test_silent_server_holds_up_neither_timeout_nor_close(ctx: Context) -> None:
    with _source(ctx) as source:
        cur = source.stream(source.connect(ctx.proxy().dsn))
        ctx.proxy().stall()
        watch = Stopwatch()

        with raises(greenpg.DeadlineExceeded), cur.connection.deadline(0.05):
            cur.consume_stream(print)
        job = _asleep(ctx, cur)
        cur.connection.close()
        with raises(InterfaceError):
            job.result()

        assert watch.seconds() < 2
        ctx.proxy().flow()


def test_lost_stream_is_told_by_its_error(ctx: Context) -> None:
    with _source(ctx) as source:
        cur = source.stream(source.connect())
        job = _asleep(ctx, cur)

        ctx.server.terminate(cur.connection.info.backend_pid)

        with raises(AdminShutdown):
            job.result()


def test_stream_that_is_dropped_leaves_nothing(ctx: Context) -> None:
    with _source(ctx) as source:
        factory = LogicalReplicationConnection
        conn = greenpg.connect(ctx.dsn, backend=ctx.backend, connection_factory=factory)
        cur = source.stream(conn)
        source.insert(0)
        _consume(cur, Collector((0, 0)))

        del conn, cur

        ctx.wait_until(lambda: source.pid() is None, "the session has ended")


@limit(100)
def test_follower_sees_every_row_though_its_session_is_cut_ten_times(ctx: Context) -> None:
    """100,000 rows, each at least once; those of a transaction in order, none between them."""
    with _source(ctx) as source:
        writer = ctx.spawn(_write, ctx, source)
        cutter = ctx.spawn(_cut, ctx, source)
        rows: list[tuple[int, int]] = []

        def collect(message: Any) -> None:
            if row := row_of(message):
                rows.append(row)
            if message.payload[:1] == b"C" and rows[-1] == (TRANSACTIONS, 0):
                raise StopReplication

        def finish_source() -> None:
            for job in (writer, cutter):
                job.result(60)
            source.insert(TRANSACTIONS)

        finish = ctx.spawn(finish_source)
        follow(ctx.dsn, source.name, collect, options=source.options, backend=ctx.backend)
        finish.result()

        assert cutter.value == CUTS
        runs = _runs(rows)
        assert all(numbers == list(range(len(numbers))) for _, numbers in runs)
        complete = {one for one, numbers in runs if numbers == list(range(ROWS))}
        assert complete == set(range(TRANSACTIONS))


def _runs(rows: list[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """Return each transaction's numbers as they came; a new run begins with number 0."""
    runs: list[tuple[int, list[int]]] = []
    for transaction, group in groupby(rows, itemgetter(0)):
        for _, number in group:
            if number == 0:
                runs.append((transaction, []))
            runs[-1][1].append(number)
    return runs


def _write(ctx: Context, source: Source) -> None:
    conn = ctx.connect(autocommit=True)
    for transaction in range(TRANSACTIONS):
        conn.cursor().execute(source.inserting, (transaction, ROWS - 1))
        ctx.backend.sleep(0.002)


def _cut(ctx: Context, source: Source) -> int:
    cuts = 0
    while cuts < CUTS:
        ctx.backend.sleep(ctx.random.uniform(0.01, 0.1))
        cuts += ctx.server.ask("select pg_terminate_backend(%s)", source.pid()) == [(True,)]
    return cuts


def test_forked_child_reads_nothing_of_the_stream(ctx: Context) -> None:
    with _source(ctx) as source:
        cur = source.stream(source.connect())
        collector = Collector((9, 0))
        job = _asleep(ctx, cur, collector)

        told = Child(ctx, lambda: _live_on(ctx, cur)).result()
        for transaction in range(10):
            source.insert(transaction)
        job.result()

        assert told == "lost"
        assert collector.rows == [(number, 0) for number in range(10)]
        cur.connection.close()


def _live_on(ctx: Context, cur: Any) -> str:
    """Let the copy of the consumer run, then use what was inherited."""
    ctx.backend.sleep(0.2)
    try:
        while True:
            cur.read_message()
    except (OperationalError, InterfaceError):  # the copy may have found out first
        return "lost"
