"""Notices and notifications, and the program's objects that collect them."""

from __future__ import annotations

import select
from collections import deque
from functools import partial

import pytest

RAISE = "do $$ begin raise notice 'number %', {}; end $$"


@pytest.fixture
def listening(auto, request):
    """A connection that listens on a channel of its own."""
    auto.channel_of_test = f"greenpg_{abs(hash(request.node.nodeid))}"
    auto.cursor().execute(f"listen {auto.channel_of_test}")
    return auto


@pytest.fixture
def notify(listening, notify):
    """Send notifications from another connection."""
    return partial(notify, listening.channel_of_test)


class Collector:
    """Anything that has an `append`."""

    def __init__(self, conn):
        self.conn = conn
        self.payloads = []

    def append(self, note):
        self.payloads.append(note.payload)


def test_notifications_come_with_the_next_statement(listening, notify):
    notify("one", "two")

    listening.cursor().execute("select 1")

    assert [note.payload for note in listening.notifies] == ["one", "two"]
    assert listening.notifies[0].channel == listening.channel_of_test
    assert listening.notifies[0].pid != listening.info.backend_pid


def test_notifications_come_with_poll(listening, notify):
    notify("polled")

    ready = select.select([listening], [], [], 5)
    listening.poll()

    assert ready[0] == [listening]
    assert listening.notifies.pop(0).payload == "polled"


def test_own_notifications_come_too(listening):
    listening.cursor().execute(f"notify {listening.channel_of_test}, 'mine'")

    assert listening.notifies[0].pid == listening.info.backend_pid


def test_notifications_compare_and_hash(db, listening, notify):
    notify("same", "same")
    listening.cursor().execute("select 1")

    one, two = listening.notifies

    assert one == two
    assert hash(one) == hash(two)
    assert one == db.extensions.Notify(one.pid, one.channel, "same")


def test_deque_takes_the_place_of_the_list(listening, notify):
    listening.notifies = deque(maxlen=2)
    notify("one", "two", "three")

    listening.cursor().execute("select 1")

    assert [note.payload for note in listening.notifies] == ["two", "three"]


@pytest.mark.parametrize("kind", [list, deque])
def test_subclass_of_list_or_deque_collects_in_its_own_way(listening, notify, kind):
    class Loud(kind):  # type: ignore[misc, valid-type]  # both kinds
        def append(self, note):
            super().append(note.payload.upper())

    listening.notifies = Loud()
    notify("one")

    listening.cursor().execute("select 1")

    assert list(listening.notifies) == ["ONE"]


def test_own_object_is_given_the_notifications(listening, notify):
    listening.notifies = collector = Collector(listening)
    notify("one", "two")

    listening.cursor().execute("select 1")

    assert collector.payloads == ["one", "two"]
    assert listening.notifies is collector


def test_own_object_is_given_them_by_poll_too(listening, notify):
    listening.notifies = collector = Collector(listening)
    notify("polled")

    select.select([listening], [], [], 5)
    listening.poll()

    assert collector.payloads == ["polled"]


def test_append_may_use_the_connection(listening, notify):
    class Asking(Collector):
        def append(self, note):
            cur = self.conn.cursor()
            cur.execute("select upper(%s)", (note.payload,))
            self.payloads.append(cur.fetchone()[0])

    listening.notifies = collector = Asking(listening)
    notify("one", "two")

    cur = listening.cursor()
    cur.execute("select 'mine'")

    assert collector.payloads == ["ONE", "TWO"]
    assert cur.fetchone() == ("mine",)


def test_append_that_raises_loses_no_other_notification(listening, notify, caplog):
    class Choosy(Collector):
        def append(self, note):
            if note.payload == "bad":
                raise LookupError("not this one")
            super().append(note)

    listening.notifies = collector = Choosy(listening)
    notify("good", "bad", "better")

    cur = listening.cursor()
    cur.execute("select 1")

    assert collector.payloads == ["good", "better"]
    assert cur.fetchone() == (1,)
    (record,) = caplog.records
    assert record.name == "greenpg"
    assert listening.channel_of_test in record.message


def test_list_takes_the_own_objects_place_again(listening, notify):
    listening.notifies = collector = Collector(listening)
    listening.notifies = []
    notify("one")

    listening.cursor().execute("select 1")

    assert collector.payloads == []
    assert [note.payload for note in listening.notifies] == ["one"]


def test_own_object_gets_them_whichever_task_runs_the_statement(listening, notify, spawn):
    listening.notifies = collector = Collector(listening)
    notify("one")

    spawn(listening.cursor().execute, "select 1").result()

    assert collector.payloads == ["one"]


def test_notices_are_kept(auto):
    auto.cursor().execute(RAISE.format(1))

    assert auto.notices == ["NOTICE:  number 1\n"]


def test_list_of_notices_keeps_the_last_fifty(auto):
    cur = auto.cursor()

    for number in range(60):
        cur.execute(RAISE.format(number))

    assert len(auto.notices) == 50
    assert auto.notices[-1] == "NOTICE:  number 59\n"


def test_deque_takes_the_place_of_the_list_of_notices(auto):
    auto.notices = deque(maxlen=1)

    for number in range(3):
        auto.cursor().execute(RAISE.format(number))

    assert list(auto.notices) == ["NOTICE:  number 2\n"]


def test_own_object_is_given_the_notices(auto):
    class Notices:
        def __init__(self):
            self.texts = []

        def append(self, text):
            self.texts.append(text)

    auto.notices = Notices()

    auto.cursor().execute(RAISE.format(1))

    assert auto.notices.texts == ["NOTICE:  number 1\n"]


def test_notice_collector_that_uses_the_connection_freezes_nothing(auto):
    class Asking:
        error = None

        def append(self, text):
            try:
                auto.cursor().execute("select 1")
            except auto.ProgrammingError as err:
                self.error = err

    auto.notices = Asking()

    cur = auto.cursor()
    cur.execute(RAISE.format(1))
    cur.execute("select 2")

    assert "inside another operation" in str(auto.notices.error)
    assert cur.fetchone() == (2,)
