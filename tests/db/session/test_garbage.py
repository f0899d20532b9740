"""Answers that no server gives: an operation raises a database error, and never hangs."""

from __future__ import annotations

import struct
from contextlib import closing, suppress
from io import BytesIO
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import greenpg
from greenpg.extras import LogicalReplicationConnection
from greenpg_conformance.toolkit.fake_server import message

SECONDS = 1.0
TEXT, INT4 = 25, 23
COPY_OUT, COPY_BOTH, COPY_DONE = (message(b"H", bytes(3)), message(b"W", bytes(3)), message(b"c"))
READY, IN_TRANSACTION = message(b"Z", b"I"), message(b"Z", b"T")
SENT = b"w" + bytes(24)


def columns(*oids, name=b"a"):
    described = (name + b"\0" + bytes(6) + struct.pack(">ihih", oid, -1, -1, 0) for oid in oids)
    return message(b"T", struct.pack(">h", len(oids)) + b"".join(described))


def row(*values):
    fields = (b"\xff" * 4 if v is None else struct.pack(">i", len(v)) + v for v in values)
    return message(b"D", struct.pack(">h", len(values)) + b"".join(fields))


def done(tag=b"SELECT 1"):
    return message(b"C", tag + b"\0")


def execute(conn):
    cur = conn.cursor()
    cur.execute("select 1")
    return cur.description, cur.rowcount, cur.statusmessage


def pipeline(conn):
    with conn.pipeline() as p:
        result = p.execute("select 1")
        return result.description, result.rowcount, result.statusmessage


def many(conn):
    conn.autocommit = False
    conn.cursor().executemany("insert into t values (%s)", [(n,) for n in range(9)])


def copy_rows(conn):
    with conn.cursor().copy("copy t to stdout") as copy:
        return list(copy.rows())


def copy_file(conn):
    conn.cursor().copy_expert("copy t to stdout", BytesIO())


def lobject(conn):
    conn.autocommit = False
    conn.lobject(1, "rb").read(5)


def listen(conn):
    for _ in conn.listen("channel", timeout=0):
        pass


def replicate(conn):
    cur = conn.cursor()
    cur.start_replication(slot_name="slot")
    cur.consume_stream(lambda note: (repr(note), note.send_time))


STATEMENTS = {
    execute: b"select 1",
    pipeline: b"select 1",
    many: b"values ($1)",
    copy_rows: b"copy",
    copy_file: b"copy",
    lobject: b"lo_open",
    listen: b"LISTEN",
    replicate: b"START_REPLICATION",
}


def run(operation, fake, reply, ends=None):
    """Run the operation with `reply` to its statement, then the end of the connection."""
    fake.answer(STATEMENTS[operation], reply, end=True)
    factory: Any = LogicalReplicationConnection if operation is replicate else None
    with closing(greenpg.connect(fake.dsn, connection_factory=factory)) as conn:
        conn._greenpg_state.cancel_timeout = SECONDS
        if factory is None:
            conn.autocommit = True
        try:
            with conn.deadline(SECONDS):
                operation(conn)
        finally:
            fake.answer(b"", b"")
            if ends is not None:
                ends.append(bool(conn.closed))


NO_NUMBER = {
    "nothing": done(b"SELECT 0"),
    "null": columns(INT4) + row(None) + done(),
    "word": columns(INT4) + row(b"word") + done(),
    "text": columns(TEXT) + row(b"1") + done(),
    "bytes": columns(INT4) + row(b"\xff") + done(),
    "two columns": columns(INT4, INT4) + row(b"1", b"2") + done(),
    "no row": columns(INT4) + done(),
}


@pytest.mark.parametrize("case", NO_NUMBER)
def test_lobject_without_a_number_closes_the_connection(fake, case):
    closed: list[bool] = []

    with pytest.raises(psycopg2.OperationalError, match="protocol"):
        run(lobject, fake, NO_NUMBER[case] + IN_TRANSACTION, closed)

    assert closed == [True]


@pytest.mark.parametrize(
    "sent", [b"w", b"w" + bytes(23), b"k", b"k\xff", b"unknown", b"\xff" * 40], ids=repr
)
def test_message_that_is_none_closes_the_connection(fake, sent):
    closed: list[bool] = []

    with pytest.raises(psycopg2.OperationalError, match=r"replication message|header too small"):
        run(replicate, fake, COPY_BOTH + message(b"d", sent), closed)

    assert closed == [True]


def test_message_from_the_end_of_time_is_an_error(fake):
    sent = b"w" + bytes(16) + b"\x7f" * 8 + b"payload"

    with pytest.raises(psycopg2.OperationalError, match="impossible time"):
        run(replicate, fake, COPY_BOTH + message(b"d", sent))


def test_row_of_a_copy_that_is_no_text_closes_the_connection(fake):
    reply = COPY_OUT + message(b"d", b"\xff\n") + COPY_DONE + done(b"COPY 1") + READY
    closed: list[bool] = []

    with pytest.raises(psycopg2.OperationalError, match=r"protocol.*can't decode byte 0xff"):
        run(copy_rows, fake, reply, closed)

    assert closed == [True]


def test_row_of_a_copy_under_sql_ascii_may_be_anything(conn):
    conn.set_client_encoding("SQL_ASCII")
    copy = conn.cursor().copy("copy (select U&'\\00e9') to stdout")

    with pytest.raises(UnicodeDecodeError), copy:
        list(copy.rows())

    assert not conn.closed


def test_tag_that_is_no_text_is_shown_as_psycopg2_shows_it(fake):
    fake.answer(b"select 1", message(b"1") + message(b"2") + done(b"\xff\xfe"))
    with closing(greenpg.connect(fake.dsn)) as conn:
        conn.autocommit = True

        with conn.pipeline() as p:
            assert p.execute("select 1").statusmessage == "\ufffd\ufffd"


def test_tag_of_rows_may_be_empty(fake):
    rows = columns(TEXT) + row(b"a") + done(b"")
    fake.answer(b"select 1", message(b"1") + message(b"2") + rows)
    with closing(greenpg.connect(fake.dsn)) as conn:
        conn.autocommit = True

        with conn.pipeline() as p:
            result = p.execute("select 1")

            assert (result.fetchall(), result.statusmessage) == ([("a",)], "")


KINDS = [bytes([kind]) for kind in b"123ACDEGHIKNRSTVWZcdnst"]
BODIES = st.one_of(
    st.binary(max_size=40),
    st.just(SENT + b"payload"),
    st.builds(b"".join, st.lists(st.sampled_from([b"\0", b"\1", b"\xff", b"a", b"S", b"C"]))),
)
MESSAGES = st.one_of(
    st.builds(message, st.sampled_from(KINDS), BODIES),
    st.sampled_from([COPY_OUT, COPY_BOTH, COPY_DONE, READY, IN_TRANSACTION, done()]),
    st.builds(columns, st.sampled_from([TEXT, INT4]), name=st.binary(max_size=5)),
    st.builds(row, st.binary(max_size=5) | st.none()),
    st.builds(done, st.binary(max_size=20)),
    st.binary(max_size=20),
)


@pytest.mark.parametrize("operation", STATEMENTS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, max_size=6))
def test_any_answer_ends_in_a_database_error_or_none(fake, operation, messages):
    with suppress(psycopg2.Error):
        run(operation, fake, b"".join(messages))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, max_size=6), begun=st.booleans())
def test_any_answer_to_a_connect_ends_in_a_database_error_or_none(fake, messages, begun):
    reply = message(b"R", bytes(4)) if begun else b""
    fake.answer(b"user\0", reply + b"".join(messages), end=True)

    with suppress(psycopg2.Error):
        greenpg.connect(fake.dsn, connect_timeout=2).close()
