"""A subscriber's queue: order, and an exact account of what it could not keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import InterfaceError
from psycopg2.extensions import Notify

from greenpg.notify._subscription import Inbox, Missed
from greenpg.threads import backend


def note(number):
    return Notify(1, "channel", str(number))


def told(item):
    """The number of a notification, or the marker."""
    return item if isinstance(item, Missed) else int(item.payload)


def drained(inbox):
    items = []
    while (item := inbox.take()) is not None:
        items.append(told(item))
    return items


def test_items_come_in_order():
    inbox = Inbox(backend, 10)

    for number in range(5):
        inbox.put(note(number))

    assert drained(inbox) == [0, 1, 2, 3, 4]


def test_full_inbox_drops_the_oldest_and_says_how_many():
    inbox = Inbox(backend, 3)

    for number in range(10):
        inbox.put(note(number))

    assert drained(inbox) == [Missed(7), 7, 8, 9]


def test_dropped_marker_makes_the_number_unknown():
    inbox = Inbox(backend, 2)
    inbox.put(Missed(None))

    for number in range(4):
        inbox.put(note(number))

    assert drained(inbox) == [Missed(None), 2, 3]


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_taken_and_missed_add_up(limit, puts):
    inbox = Inbox(backend, limit)
    got = []
    sent = 0

    for put in puts:
        if put:
            inbox.put(note(sent))
            sent += 1
        elif (item := inbox.take()) is not None:
            got.append(told(item))
    got += drained(inbox)

    expected = 0
    for item in got:
        if isinstance(item, Missed):
            expected += item.count or 0
        else:
            assert item == expected
            expected += 1
    assert expected == sent


def test_get_waits_for_a_put():
    inbox = Inbox(backend, 3)
    task = backend.spawn(inbox.put, note(7))

    assert told(inbox.get(5)) == 7
    assert task.join(5)


def test_get_gives_up_in_time():
    assert Inbox(backend, 3).get(0.01) is None


def test_finished_inbox_gives_what_it_has_and_waits_no_more():
    inbox = Inbox(backend, 3)
    inbox.put(note(7))

    inbox.finish(InterfaceError("over"))

    assert told(inbox.get()) == 7
    assert inbox.get() is None
    assert str(inbox.reason()) == "over"
    assert inbox.reason() is not inbox.over


def test_finish_wakes_who_waits():
    inbox = Inbox(backend, 3)
    task = backend.spawn(inbox.finish, InterfaceError("over"))

    assert inbox.get(5) is None
    assert task.join(5)
