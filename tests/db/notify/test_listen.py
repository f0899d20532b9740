"""`conn.listen()`: one connection's notifications as an iterator."""

from __future__ import annotations

import select
from collections import deque
from itertools import islice

import pytest

import greenpg
from greenpg.backend import current
from greenpg.errors import DeadlineExceeded
from greenpg_conformance.toolkit.internals import waits_for_input
from greenpg_conformance.toolkit.jobs import Job
from tests.db.conftest import until
from tests.db.notify.conftest import payloads

SHORT = 0.05


def channels(conn):
    with conn.cursor() as cur:
        cur.execute("select pg_listening_channels()")
        found = sorted(row[0] for row in cur)
    conn.commit()
    return found


@pytest.mark.parametrize("autocommit", [True, False])
def test_notifications_are_yielded_in_order(conn, notify, autocommit):
    conn.autocommit = autocommit
    notes = conn.listen("one", "two", timeout=5)

    notify("one", "a", "b")
    notify("two", "c")
    got = list(islice(notes, 3))

    assert [(note.channel, note.payload) for note in got] == [
        ("one", "a"), ("one", "b"), ("two", "c"),
    ]  # fmt: skip
    notes.close()


def test_iteration_waits_for_what_comes_later(conn, notify, spawn):
    notes = conn.listen("later")

    until(lambda: greenpg.ConnectionLock(conn).locked(), "the iteration holds the connection")
    job = spawn(notify, "later", "now")

    assert next(notes).payload == "now"
    job.result()
    notes.close()


def test_silence_ends_the_iteration(conn, notify):
    notes = conn.listen("quiet", timeout=SHORT)
    notify("quiet", "one")

    assert payloads(notes) == ["one"]
    assert channels(conn) == []
    assert list(notes) == []


def test_no_timeout_at_all_takes_what_is_there(conn, notify):
    with conn.listen("now", timeout=0) as notes:
        notify("now", "one")
        select.select([conn], [], [], 5)

        assert payloads(notes) == ["one"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_break_stops_listening(conn, notify, autocommit):
    conn.autocommit = autocommit
    notes = conn.listen("left")
    notify("left", "one", "two")

    for note in notes:
        assert note.payload == "one"
        break
    del notes

    assert channels(conn) == []
    assert payloads(conn.notifies) == ["two"]


def test_error_in_the_loop_stops_listening(conn, notify):
    def fail():
        with conn.listen("failing") as notes:
            notify("failing", "one")
            next(notes)
            raise LookupError

    with pytest.raises(LookupError):
        fail()

    assert channels(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


def test_close_is_idempotent_and_ends_the_iteration(conn):
    notes = conn.listen("closed")

    notes.close()
    notes.close()

    assert list(notes) == []
    assert channels(conn) == []


def test_channels_listened_to_before_are_kept(auto, notify):
    auto.cursor().execute("listen mine")

    with auto.listen("mine", "other", timeout=5) as notes:
        notify("mine", "one")
        assert next(notes).payload == "one"

    assert channels(auto) == ["mine"]


@pytest.mark.parametrize("kind", [list, deque])
def test_other_channels_notifications_go_where_they_always_go(auto, notify, kind):
    auto.notifies = kind()
    auto.cursor().execute("listen other")

    with auto.listen("mine", timeout=5) as notes:
        notify("other", "theirs")
        notify("mine", "ours")
        assert next(notes).payload == "ours"

    assert type(auto.notifies) is kind
    assert payloads(auto.notifies) == ["theirs"]


def test_other_channels_notifications_reach_an_object_of_the_users(auto, notify):
    class Collector:
        def __init__(self):
            self.payloads = []

        def append(self, note):
            self.payloads.append(note.payload)

    auto.notifies = collector = Collector()
    auto.cursor().execute("listen other")

    with auto.listen("mine", timeout=5) as notes:
        notify("other", "theirs")
        notify("mine", "ours", "late")
        assert next(notes).payload == "ours"

    assert collector.payloads == ["theirs", "late"]
    assert auto.notifies is collector


def test_names_are_taken_as_the_server_stores_them(conn, notify):
    with conn.listen('Odd "name"', timeout=5) as notes:
        notify('Odd "name"', "one")

        assert next(notes).channel == 'Odd "name"'


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "zero\0byte"])
def test_impossible_name_is_refused(db, conn, name):
    with pytest.raises(db.ProgrammingError, match="a name has 1 to 63 bytes"):
        conn.listen("fine", name)

    assert not greenpg.ConnectionLock(conn).locked()
    assert channels(conn) == []


def test_wrong_arguments_are_refused(db, conn):
    with pytest.raises(db.ProgrammingError, match="at least one channel"):
        conn.listen()
    with pytest.raises(TypeError, match="not int"):
        conn.listen(7)


def test_open_transaction_is_refused(db, conn):
    conn.cursor().execute("select 1")

    with pytest.raises(db.ProgrammingError, match="commit or roll back first"):
        conn.listen("late")

    assert not greenpg.ConnectionLock(conn).locked()


def test_transaction_opened_in_the_loop_must_be_ended_in_it(db, conn, notify):
    notes = conn.listen("busy", timeout=5)
    notify("busy", "one")

    next(notes)
    conn.cursor().execute("select 1")
    with pytest.raises(db.ProgrammingError, match="commit or roll back first"):
        next(notes)
    conn.commit()

    assert channels(conn) == []


def test_asynchronous_connection_is_refused(db, connect):
    conn = connect(async_=1)
    greenpg.wait(conn, 5)

    with pytest.raises(db.ProgrammingError, match="asynchronous"):
        conn.listen("late")


def test_task_uses_the_connection_within_its_loop(conn, notify):
    notes = conn.listen("jobs", timeout=SHORT)
    notify("jobs", "one", "two")
    done = []

    for note in notes:
        with conn, conn.cursor() as cur:
            cur.execute("select upper(%s)", (note.payload,))
            done += cur.fetchone()

    assert done == ["ONE", "TWO"]


def test_other_tasks_wait_for_the_end_of_the_iteration(conn, spawn):
    order = []

    def other():
        conn.cursor().execute("select 1")
        order.append("other")

    notes = conn.listen("held", timeout=SHORT)
    job = spawn(other)
    order += list(notes)
    order.append("listener")
    job.result()

    assert order == ["listener", "other"]


def test_close_from_another_task_ends_the_iteration(db, conn, spawn):
    notes = conn.listen("endless")
    job = Job(
        current(),
        lambda: (until(lambda: waits_for_input(conn), "it waits"), conn.close()),
        (),
    )

    with pytest.raises(db.InterfaceError, match="already closed"):
        next(notes)

    job.result()
    assert conn.closed
    assert list(notes) == []


def test_server_that_ends_the_session_ends_the_iteration(db, conn, auto):
    notes = conn.listen("cut")

    auto.cursor().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))

    with pytest.raises(db.OperationalError):
        next(notes)
    assert conn.closed
    assert not greenpg.ConnectionLock(conn).locked()


def test_deadline_ends_the_iteration(conn):
    with pytest.raises(DeadlineExceeded), conn.deadline(SHORT):
        for _ in conn.listen("endless"):
            pass

    assert channels(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


@pytest.mark.green
def test_kill_ends_the_iteration(conn, spawn):
    job = spawn(lambda: list(conn.listen("endless")))
    until(lambda: waits_for_input(conn), "it waits")

    job.kill()
    job.join()

    assert isinstance(job.error, current().exits)
    assert channels(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


@pytest.mark.green
def test_iterator_dropped_by_another_task_stops_listening(conn, spawn):
    kept = []
    spawn(lambda: kept.append(conn.listen("handed"))).result()
    assert greenpg.ConnectionLock(conn).locked()

    kept.clear()

    until(lambda: channels(conn) == [], "it has stopped listening")
    assert not greenpg.ConnectionLock(conn).locked()


def test_iterating_in_another_task_is_refused(db, conn, spawn):
    notes = conn.listen("mine")

    with pytest.raises(db.ProgrammingError, match="belongs to the task that called listen"):
        spawn(next, notes).result()

    notes.close()


def test_another_task_may_end_the_iteration(conn, spawn):
    made = []

    def listen():
        with conn.listen("mine") as notes:
            made.append(notes)
            return list(notes)

    job = spawn(listen)
    until(lambda: made and made[0]._waits, "it waits")

    made[0].close()

    assert job.result() == []
    assert channels(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


def test_another_task_may_close_an_iterator_that_nobody_waits_on(conn, spawn):
    notes = conn.listen("mine")

    spawn(notes.close).result()

    assert list(notes) == []
    assert channels(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


def test_channel_is_heard_on_every_client_encoding(conn, notify, encoding, name):
    conn.set_client_encoding(encoding)

    with conn.listen(name, timeout=5) as notes:
        assert channels(conn) == [name]
        notify(name, "here")
        note = next(notes)

    assert (note.channel, note.payload) == (name, "here")
    assert channels(conn) == []


def test_name_that_the_client_encoding_lacks_is_refused(conn):
    conn.set_client_encoding("LATIN1")

    with pytest.raises(UnicodeEncodeError):
        conn.listen("\u8868")

    assert channels(conn) == []
