"""Large objects: green, shared in order, and usable after an interrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import psycopg2

from greenpg import DeadlineExceeded
from greenpg.errors import InFailedSqlTransaction
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, raises

from ._steps import SHORT, check_killed, finish, interrupted, spawn_busy

PIECE: Final = bytes(range(256)) * 1024
PIECES: Final = 40


class Blocked:
    """A large object that another session is writing to, so that a write to it waits."""

    def __init__(self, ctx: Context) -> None:
        self.conn = ctx.connect()
        self.oid = self.conn.lobject().oid
        self.conn.lobject(self.oid, "wb").write(b"old")
        self.conn.commit()
        self._other = ctx.connect()
        self._other.cursor().execute("select lo_put(%s, 0, 'x')", (self.oid,))

    def write(self) -> None:
        self.conn.lobject(self.oid, "wb").write(b"new")

    def content(self) -> Any:
        """Remove the obstacle, roll back and return what the object holds."""
        self._other.rollback()
        self.conn.rollback()
        with self.conn.lobject(self.oid, "rb") as lob:
            return lob.read()


def _filled(conn: Any, pieces: int) -> Any:
    lob = conn.lobject(0, "wb")
    lob.write(PIECE * pieces)
    lob.seek(0)
    return lob


def test_transfers_hold_nobody_up(ctx: Context) -> None:
    lob = ctx.connect().lobject(0, "wb")

    with ctx.heartbeat() as pulse:
        for _ in range(PIECES):
            lob.write(PIECE)
        lob.seek(0)
        size = sum(len(lob.read(len(PIECE))) for _ in range(PIECES))

    assert size == PIECES * len(PIECE)
    assert pulse.beats


def test_read_of_all_holds_nobody_up(ctx: Context) -> None:
    lob = _filled(ctx.connect(), PIECES)

    with ctx.heartbeat():
        data = lob.read()

    assert data == PIECE * PIECES


def test_slow_server_holds_nobody_up(ctx: Context) -> None:
    lob = _filled(ctx.connect(ctx.proxy().dsn), 1)
    ctx.proxy().drip(16384, 0.005)

    with ctx.heartbeat() as pulse:
        data = lob.read()

    assert data == PIECE
    assert pulse.beats > 10


def test_tasks_share_a_connection(ctx: Context) -> None:
    conn = ctx.connect()
    lobs = [conn.lobject(0, "wb") for _ in range(4)]

    def fill(lob: Any, letter: bytes) -> None:
        for _ in range(10):
            lob.write(letter * 1000)
            conn.cursor().execute("select 1")

    jobs = [ctx.spawn(fill, lob, bytes([65 + n])) for n, lob in enumerate(lobs)]
    finish(jobs)
    for lob in lobs:
        lob.seek(0)

    assert [lob.read() for lob in lobs] == [bytes([65 + n]) * 10_000 for n in range(4)]


def test_long_read_is_one_operation(ctx: Context) -> None:
    lob = _filled(ctx.connect(), 8)

    reader = ctx.spawn(lob.read)
    ctx.wait_until(lambda: reader.began)
    disturber = ctx.spawn(lob.seek, 0)

    assert len(reader.result()) == 8 * len(PIECE)
    assert disturber.result() == 0


def test_deadline_stops_a_write(ctx: Context) -> None:
    blocked = Blocked(ctx)

    with raises(DeadlineExceeded), blocked.conn.deadline(SHORT):
        blocked.write()

    with raises(InFailedSqlTransaction):
        blocked.conn.commit()
    assert blocked.content() == b"old"


@needs("kill")
def test_kill_stops_a_write(ctx: Context) -> None:
    blocked = Blocked(ctx)
    writer = spawn_busy(ctx, blocked.conn, blocked.write)

    check_killed(ctx, writer)

    assert blocked.content() == b"old"


@needs("kill")
def test_timeout_comes_out_as_itself(ctx: Context) -> None:
    blocked = Blocked(ctx)

    interrupted(ctx, "timeout", blocked.write, SHORT)

    assert blocked.content() == b"old"


def test_interrupted_object_closes_without_a_word(ctx: Context) -> None:
    blocked = Blocked(ctx)

    with (
        raises(DeadlineExceeded),
        blocked.conn.lobject(blocked.oid, "wb") as lob,
        blocked.conn.deadline(SHORT),
    ):
        lob.write(b"new")

    assert lob.closed
    assert blocked.content() == b"old"


def test_close_of_the_connection_ends_a_write(ctx: Context) -> None:
    blocked = Blocked(ctx)
    writer = spawn_busy(ctx, blocked.conn, blocked.write)

    blocked.conn.close()

    assert isinstance(writer.join().error, psycopg2.InterfaceError)


def test_lost_server_is_told(ctx: Context) -> None:
    conn = ctx.connect(ctx.proxy().dsn)
    lob = conn.lobject(0, "wb")
    ctx.proxy().cut()

    with raises(psycopg2.OperationalError):
        lob.write(PIECE)

    assert conn.closed
    assert lob.closed


USES: Final[dict[str, Callable[[Any], object]]] = {
    "open": lambda lob: lob._greenpg_conn.lobject(),
    "read": lambda lob: lob.read(1),
    "write": lambda lob: lob.write(b"x"),
    "close": lambda lob: lob.close(),
    "unlink": lambda lob: lob.unlink(),
}


@needs("hub")
@each(*USES)
def test_hub_is_refused(ctx: Context, case: str) -> None:
    lob = ctx.connect().lobject()

    with raises(psycopg2.ProgrammingError, words="event loop"):
        ctx.in_hub(lambda: USES[case](lob))

    assert lob.write(b"x") == 1
