"""A server whose answers would never end: an operation ends, and other tasks run meanwhile."""

from __future__ import annotations

import struct
from io import BytesIO

import psycopg2
import pytest

import greenpg
from greenpg.backend import current
from greenpg.extras import LogicalReplicationConnection
from greenpg_conformance.toolkit.fake_server import message
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.db.conftest import until

COPY_IN, COPY_OUT, COPY_BOTH = (message(kind, b"\0\0\0") for kind in (b"G", b"H", b"W"))
COPY_DONE = message(b"c")
READY = message(b"Z", b"I")
DONE = message(b"C", b"SELECT 1\0")
NOTICE = message(b"N", b"SNOTICE\0C00000\0Mtext\0\0")
ROW = message(b"D", b"\0\1\0\0\0\1a")
COLUMNS = message(b"T", b"\0\1a\0" + bytes(6) + struct.pack(">ihih", 25, -1, -1, 0))
SETTING = message(b"S", b"some\0setting\0")
SECONDS = 0.2


def keepalive(reply):
    return message(b"d", b"k" + struct.pack(">QQ?", 1, 1, reply))


@pytest.fixture
def rogue(fake, connect):
    conn = connect(fake.dsn)
    conn.autocommit = True
    conn._greenpg_state.cancel_timeout = SECONDS
    return conn


@pytest.fixture
def streaming(fake, connect):
    conn = connect(fake.dsn, connection_factory=LogicalReplicationConnection)
    conn._greenpg_state.cancel_timeout = SECONDS
    return conn


def in_pipeline(conn):
    with conn.pipeline() as p:
        p.execute("insert into t values (1)").fetchone()


def in_pipeline_unread(conn):
    with conn.pipeline() as p:
        p.execute("insert into t values (1)")


def many(conn):
    conn.autocommit = False
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(9)])


def execute(conn):
    conn.cursor().execute("insert into t values (1)")


def copy_block(conn):
    with conn.cursor().copy("copy t to stdout") as copy:
        while copy.read():
            pass


def copy_file(conn):
    conn.cursor().copy_expert("copy t to stdout", BytesIO())


def consume(conn):
    cur = conn.cursor()
    cur.start_replication(slot_name="slot")
    cur.consume_stream(lambda _: None)


# An operation that held others up would do so for good, as it would hold its own deadline up.
STALL = 2 * SECONDS


def fair():
    """Return a heartbeat that fails if other tasks are held up for too long."""
    return heartbeat(current(), STALL)


def ends_at_the_deadline(rogue, operation):
    with fair(), pytest.raises(greenpg.DeadlineExceeded), rogue.deadline(SECONDS):
        operation(rogue)

    assert rogue.closed


PREPARED = message(b"1") + message(b"2")
NEVER_ENDING = {
    "copy in": COPY_IN,
    "copy out": COPY_OUT,
    "copy out, ended": COPY_OUT + COPY_DONE,
    "copy both": COPY_BOTH,
    "syncs": PREPARED + READY + READY,
}


@pytest.mark.parametrize("operation", [in_pipeline, in_pipeline_unread, many])
@pytest.mark.parametrize("case", NEVER_ENDING)
def test_answer_that_fits_no_pipeline_closes_the_connection(fake, rogue, operation, case):
    part = b"values ($1)" if operation is many else b"insert"
    fake.answer(part, NEVER_ENDING[case])

    with (
        fair(),
        pytest.raises(psycopg2.OperationalError, match=r"protocol|COPY"),
    ):
        operation(rogue)

    assert rogue.closed


@pytest.mark.parametrize(
    "case", ["copy both", "copy out, ended", "copy out"], ids=["both", "out, ended", "out"]
)
def test_stream_that_goes_over_to_another_copy_closes_the_connection(fake, streaming, case):
    fake.answer(b"START_REPLICATION", COPY_BOTH + COPY_DONE + NEVER_ENDING[case])

    with fair(), pytest.raises(psycopg2.OperationalError, match="protocol"):
        consume(streaming)

    assert streaming.closed


def test_stream_that_ends_again_and_again_closes_the_connection(fake, streaming):
    fake.answer(b"START_REPLICATION", COPY_BOTH + COPY_DONE, flood=COPY_IN * 1000)

    with fair(), pytest.raises(psycopg2.OperationalError, match="protocol"):
        consume(streaming)

    assert streaming.closed


FLOODS = {
    "results": (b"", DONE),
    "rows": (COLUMNS, ROW),
    "notices": (b"", NOTICE),
    "settings": (b"", SETTING),
}


@pytest.mark.parametrize("operation", [execute, in_pipeline_unread])
@pytest.mark.parametrize("case", FLOODS)
def test_flood_ends_at_the_deadline(fake, rogue, operation, case):
    reply, flood = FLOODS[case]
    fake.answer(b"insert", reply, flood=flood * 100)

    ends_at_the_deadline(rogue, operation)


@pytest.mark.parametrize("operation", [copy_block, copy_file])
def test_copy_without_an_end_ends_at_the_deadline(fake, rogue, operation):
    fake.answer(b"copy", COPY_OUT, flood=message(b"d", b"row\n") * 100)

    ends_at_the_deadline(rogue, operation)


@pytest.mark.parametrize("flood", [COPY_OUT + COPY_DONE, COPY_IN], ids=["out", "in"])
def test_copies_without_an_end_close_the_connection(fake, rogue, flood):
    fake.answer(b"insert", b"", flood=flood * 100)

    with fair(), pytest.raises(psycopg2.Error):
        execute(rogue)

    assert rogue.closed


@pytest.mark.parametrize("reply", [False, True])
def test_flood_of_keepalives_holds_nobody_up(fake, streaming, reply):
    fake.answer(b"START_REPLICATION", COPY_BOTH, flood=keepalive(reply) * 100)

    limit = streaming.deadline(SECONDS)
    with fair() as pulse, pytest.raises(greenpg.DeadlineExceeded), limit:
        consume(streaming)

    assert pulse.beats
    assert not streaming.closed


@pytest.mark.green
def test_kill_lands_in_a_flood_of_keepalives(fake, streaming, spawn):
    fake.answer(b"START_REPLICATION", COPY_BOTH, flood=keepalive(False) * 100)
    job = spawn(consume, streaming)
    until(lambda: any(b"START" in part for part in fake.received()), "the stream begins")

    job.kill()
    job.join()

    assert isinstance(job.error, current().exits)


def test_connect_timeout_ends_a_startup_without_an_end(fake):
    fake.answer(b"user\0", message(b"R", bytes(4)), flood=SETTING * 100)

    # no heartbeat: PQconnectPoll reads all settings that have come in one call (fe-connect.c)
    with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
        greenpg.connect(fake.dsn, connect_timeout=2)
