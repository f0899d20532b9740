"""Replication: psycopg2's connections and cursor, as documented in its manual."""

from __future__ import annotations

import select
from datetime import datetime, timedelta

import pytest

import greenpg
from greenpg.backend import current
from greenpg.errors import DeadlineExceeded
from greenpg.extras import (
    REPLICATION_LOGICAL,
    LogicalReplicationConnection,
    PhysicalReplicationConnection,
    ReplicationCursor,
    ReplicationMessage,
    StopReplication,
)
from greenpg_conformance.toolkit.heartbeat import heartbeat
from tests.db.conftest import until
from tests.db.replication.conftest import PLUGIN, inserted

SHORT = 0.05


@pytest.fixture
def logical(source, connect):
    """A connection for logical replication, closed before the slot is dropped."""
    return connect(connection_factory=LogicalReplicationConnection)


@pytest.fixture
def stream(source, logical):
    """A cursor on which the slot's changes are streaming."""
    cur = logical.cursor()
    cur.start_replication(slot_name=source.slot, options=source.options)
    return cur


def consume(cur, count):
    """The next `count` inserted rows."""
    rows = []

    def each(message):
        row = inserted(message)
        if row is not None:
            rows.append(row)
        message.cursor.send_feedback(flush_lsn=message.data_start)
        if len(rows) == count:
            raise StopReplication

    with pytest.raises(StopReplication):
        cur.consume_stream(each)
    return rows


def sleeps(cur):
    return cur._greenpg_stream._input.waiting


def test_quick_start_of_the_manual(db, source, connect, spawn):
    source.ask("select pg_drop_replication_slot(%s)", source.slot)
    seen = []

    def demo():
        conn = connect(connection_factory=LogicalReplicationConnection)
        cur = conn.cursor()
        try:
            cur.start_replication(slot_name=source.slot, options=source.options)
        except db.ProgrammingError:
            cur.create_replication_slot(source.slot, output_plugin=PLUGIN)
            cur.start_replication(slot_name=source.slot, options=source.options)

        class DemoConsumer:
            def __call__(self, msg):
                seen.append(inserted(msg))
                msg.cursor.send_feedback(flush_lsn=msg.data_start)
                if "three" in seen:
                    raise KeyboardInterrupt

        try:
            cur.consume_stream(DemoConsumer())
        except KeyboardInterrupt:
            cur.close()
            conn.close()

    job = spawn(demo)
    until(lambda: source.fact("active"), "the stream has begun")
    with heartbeat(current()):
        source.insert("one", "two", "three")
        job.result()

    assert [row for row in seen if row] == ["one", "two", "three"]


def test_classes_are_psycopg2s_and_green(logical):
    cur = logical.cursor()

    assert logical.replication_type == REPLICATION_LOGICAL
    assert isinstance(cur, ReplicationCursor)
    assert isinstance(cur, greenpg.Cursor)
    assert isinstance(logical, greenpg.Connection)


def test_settings_that_make_no_sense_are_refused_as_in_psycopg2(logical):
    for name in ("autocommit", "isolation_level", "reset"):
        with pytest.raises(AttributeError):
            getattr(logical, name)


def test_messages_have_psycopg2s_attributes(source, stream):
    messages = []

    def each(message):
        messages.append(message)
        if message.payload[:1] == b"C":
            raise StopReplication

    source.insert("row")
    with pytest.raises(StopReplication):
        stream.consume_stream(each)

    message = messages[-1]
    assert isinstance(message, ReplicationMessage)
    assert message.cursor is stream
    assert message.data_size == len(message.payload)
    assert messages[0].data_start <= message.data_start <= message.wal_end == stream.wal_end
    assert abs(message.send_time - datetime.now()) < timedelta(minutes=5)
    assert f"data_size: {message.data_size}; data_start: " in repr(message)
    assert abs(stream.io_timestamp - datetime.now()) < timedelta(minutes=5)


def test_payload_is_decoded_on_demand(source, connect):
    conn = connect(connection_factory=LogicalReplicationConnection, client_encoding="LATIN1")
    cur = conn.cursor()
    cur.start_replication(slot_name=source.slot, options=source.options, decode=True)
    source.insert("é")

    for _ in range(100):
        select.select([cur], [], [], 5)
        while message := cur.read_message():
            if message.payload[0] == "I":
                assert message.payload[-1] == "é"
                return
    raise AssertionError("no row")


def test_read_message_never_waits(source, stream):
    assert stream.read_message() is None

    source.insert("one")
    message = until(stream.read_message, "a message has arrived")
    while inserted(message) is None:
        message = until(stream.read_message, "another message has arrived")

    assert inserted(message) == "one"


def test_asynchronous_connection_reads_messages(db, source, connect):
    conn = connect(connection_factory=LogicalReplicationConnection, async_=1)
    greenpg.wait(conn, 5)
    cur = conn.cursor()
    cur.start_replication(slot_name=source.slot, options=source.options)
    greenpg.wait(conn, 5)
    source.insert("one")

    with pytest.raises(db.ProgrammingError, match="asynchronous mode"):
        cur.consume_stream(print)
    rows = []
    while "one" not in rows:
        message = cur.read_message()
        if message is None:
            assert select.select([cur], [], [], 5)[0]
        else:
            rows.append(inserted(message))


def test_long_rows_arrive_whole(source, stream):
    rows = [letter * 3_000_000 for letter in "ab"]

    source.insert(*rows)

    assert consume(stream, 2) == rows


def test_error_of_the_consumer_propagates_and_the_stream_goes_on(source, stream):
    source.insert("one", "two")

    def fail(message):
        if inserted(message):
            raise LookupError(inserted(message))

    for row in ("one", "two"):
        with pytest.raises(LookupError, match=row):
            stream.consume_stream(fail)
    source.insert("three")

    assert consume(stream, 1) == ["three"]


def test_deadline_ends_the_wait_and_the_stream_goes_on(source, logical, stream):
    rows = []
    for number in range(3):
        with pytest.raises(DeadlineExceeded), logical.deadline(SHORT):
            stream.consume_stream(print)
        source.insert(str(number))
        rows += consume(stream, 1)

    assert rows == ["0", "1", "2"]


@pytest.mark.green
def test_kill_ends_the_wait_and_the_stream_goes_on(source, stream, spawn):
    job = spawn(stream.consume_stream, print)
    until(lambda: sleeps(stream), "it waits")

    job.kill()
    job.join()
    source.insert("one")

    assert isinstance(job.error, current().exits)
    assert consume(stream, 1) == ["one"]


def test_feedback_reaches_the_server(source, stream):
    source.insert("one")
    consume(stream, 1)
    end = stream.wal_end

    stream.send_feedback(flush_lsn=end, force=True)

    until(lambda: source.fact(f"confirmed_flush_lsn - '0/0' >= {end}"), "it is confirmed")
    assert abs(stream.feedback_timestamp - datetime.now()) < timedelta(minutes=5)


def test_another_task_may_feed_back(source, stream, spawn):
    source.insert("one")
    consume(stream, 1)
    job = spawn(consume, stream, 1)
    until(lambda: sleeps(stream), "it waits")
    end = source.ask("select pg_current_wal_lsn() - '0/0'")[0]

    stream.send_feedback(flush_lsn=int(end), reply=True)

    until(lambda: source.fact(f"confirmed_flush_lsn - '0/0' >= {end}"), "it is confirmed")
    source.insert("two")
    end = source.ask("select pg_current_wal_lsn() - '0/0'")[0]
    sent = f"sent_lsn - '0/0' >= {end}"
    until(lambda: source.fact(sent, "pg_stat_replication") or source.flush(), "it is sent")
    assert job.result() == ["two"]


def impatient(connect, source):
    """A stream whose server disconnects a client that is silent for a second."""
    conn = connect(
        connection_factory=LogicalReplicationConnection, options="-c wal_sender_timeout=1s"
    )
    cur = conn.cursor()
    cur.start_replication(slot_name=source.slot, options=source.options)
    return cur


def hear_twice(source):
    """Wait until the server has received two more replies, which takes more than a second."""
    for _ in range(3):
        before = source.fact("reply_time", "pg_stat_replication")
        until(
            lambda: source.fact("reply_time", "pg_stat_replication") != before,  # noqa: B023
            "the server has received a reply",
        )


def test_busy_consumer_keeps_its_connection(source, connect):
    cur = impatient(connect, source)
    source.insert("one")

    def busy(message):
        if inserted(message):
            hear_twice(source)
            raise StopReplication

    with pytest.raises(StopReplication):
        cur.consume_stream(busy)
    source.insert("two")

    assert consume(cur, 1) == ["two"]


def test_idle_consumer_keeps_its_connection(source, connect, spawn):
    cur = impatient(connect, source)
    job = spawn(consume, cur, 1)

    hear_twice(source)
    source.insert("one")

    assert job.result() == ["one"]


def test_stopping_frees_the_slot_and_the_connection(source, logical, stream):
    source.insert("one")
    consume(stream, 1)

    stream.stop_replication()
    stream.stop_replication()

    assert source.fact("active") is False
    stream.execute("IDENTIFY_SYSTEM")
    assert len(stream.fetchone()) == 4


def test_stopping_sends_the_consumers_position(source, stream):
    source.insert("one")
    consume(stream, 1)

    stream.stop_replication()

    assert source.fact(f"confirmed_flush_lsn - '0/0' >= {stream.flush_lsn}")


def test_consumer_may_stop_the_stream(source, stream):
    source.insert("one", "two")
    rows = []

    def each(message):
        if inserted(message):
            rows.append(inserted(message))
            stream.stop_replication()

    stream.consume_stream(each)

    assert rows == ["one"]
    assert source.fact("active") is False


def test_close_from_another_task_ends_the_stream(db, logical, stream, spawn):
    job = spawn(stream.consume_stream, print)
    until(lambda: sleeps(stream), "it waits")

    logical.close()

    with pytest.raises(db.InterfaceError, match="already closed"):
        job.result()
    with pytest.raises(db.InterfaceError, match="already closed"):
        stream.read_message()


def test_close_by_the_consumer_ends_the_stream(db, source, logical, stream):
    source.insert("one", "two")

    with pytest.raises(db.InterfaceError, match="already closed"):
        stream.consume_stream(lambda message: logical.close())


def test_server_that_ends_the_session_raises_its_error(db, source, logical, stream):
    source.ask("select pg_terminate_backend(%s)", logical.info.backend_pid)

    with pytest.raises(db.errors.AdminShutdown) as caught:
        stream.consume_stream(print)

    assert caught.value.pgcode == "57P01"
    assert "terminating connection" in caught.value.diag.message_primary
    with pytest.raises(db.Error):
        stream.read_message()


def test_wrong_use_is_refused_as_in_psycopg2(db, source, logical):
    cur = logical.cursor()

    with pytest.raises(db.ProgrammingError, match="call start_replication first"):
        cur.consume_stream(print)
    with pytest.raises(db.ProgrammingError, match="call start_replication first"):
        cur.read_message()
    with pytest.raises(db.ProgrammingError, match="status_interval must be >= 1"):
        cur.start_replication(slot_name=source.slot, status_interval=0.5)
    with pytest.raises(db.ProgrammingError, match="slot name is required"):
        cur.start_replication()
    with pytest.raises(db.ProgrammingError, match="output plugin name is required"):
        cur.create_replication_slot("any")


@pytest.mark.parametrize("interval", [0.5, 0, "ten"])
def test_wrong_keepalive_interval_is_refused(db, stream, interval):
    with pytest.raises(db.ProgrammingError, match="keepalive_interval must be"):
        stream.consume_stream(print, keepalive_interval=interval)


def test_consuming_twice_at_once_is_refused(db, source, stream):
    source.insert("one")

    with pytest.raises(db.ProgrammingError, match="already in the consume loop"):
        stream.consume_stream(lambda message: stream.consume_stream(print))


def test_missing_slot_is_an_error_and_the_connection_is_usable(db, source, logical):
    cur = logical.cursor()

    with pytest.raises(db.errors.UndefinedObject, match="does not exist"):
        cur.start_replication(slot_name="no_such_slot", options=source.options)
    cur.start_replication(slot_name=source.slot, options=source.options)
    source.insert("one")

    assert consume(cur, 1) == ["one"]


def test_statement_during_a_stream_is_refused(db, logical, stream):
    with pytest.raises(db.Error, match="another command is already in progress"):
        logical.cursor().execute("IDENTIFY_SYSTEM")

    assert stream.read_message() is None


def test_command_of_ones_own(source, logical):
    cur = logical.cursor()
    cur.start_replication_expert(
        greenpg.sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})"
        ).format(greenpg.sql.Identifier(source.slot), greenpg.sql.Literal(source.slot))
    )
    source.insert("one")

    assert consume(cur, 1) == ["one"]


def test_slot_is_created_and_dropped(source, logical):
    cur = logical.cursor()
    name = f"{source.slot}_other"

    cur.create_replication_slot(name, output_plugin=PLUGIN)
    created = cur.fetchone()[0]
    cur.drop_replication_slot(name)

    assert created == name
    count = source.ask("select count(*) from pg_replication_slots where slot_name = %s", name)
    assert count == (0,)


def test_physical_replication(source, connect):
    name = f"{source.slot}_physical"
    conn = connect(connection_factory=PhysicalReplicationConnection)
    cur = conn.cursor()
    cur.create_replication_slot(name)
    lsn = source.ask("select pg_current_wal_flush_lsn()")[0]
    sizes = []

    def each(message):
        sizes.append(message.data_size)
        raise StopReplication

    cur.start_replication(name, start_lsn=lsn)
    source.insert("one")
    with pytest.raises(StopReplication):
        cur.consume_stream(each)
    cur.stop_replication()
    cur.drop_replication_slot(name)

    assert sizes[0] > 0


def test_cursor_class_of_ones_own(source, logical):
    class Counting(ReplicationCursor):
        messages = 0

        def read_message(self):
            message = super().read_message()
            self.messages += message is not None
            return message

    cur = logical.cursor(cursor_factory=Counting)
    cur.start_replication(slot_name=source.slot, options=source.options)
    source.insert("one")
    until(lambda: cur.read_message(), "a message has come")

    assert cur.messages == 1


def test_connection_class_of_ones_own(source, connect):
    class Named(LogicalReplicationConnection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.name = "mine"

    conn = connect(connection_factory=Named)
    cur = conn.cursor()
    cur.start_replication(slot_name=source.slot, options=source.options)
    source.insert("one")

    assert conn.name == "mine"
    assert consume(cur, 1) == ["one"]
