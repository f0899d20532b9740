"""A subscriber's queue: order, and an exact count of dropped items."""

from __future__ import annotations

import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import InterfaceError
from psycopg2.extensions import Notify

from greenpg._psycopg2.state import ERRORS
from greenpg.notify._subscription import Inbox, Missed
from greenpg.threads import Event, Threads, backend


def note(number):
    return Notify(1, "channel", str(number))


def content(item):
    """Return the number of a notification, or the marker."""
    return item if isinstance(item, Missed) else int(item.payload)


def drained(inbox):
    items = []
    while (item := inbox.take()) is not None:
        items.append(content(item))
    return items


def test_items_come_in_order():
    inbox = Inbox(backend, 10, ERRORS)

    for number in range(5):
        inbox.put(note(number))

    assert drained(inbox) == [0, 1, 2, 3, 4]


def test_full_inbox_drops_the_oldest_and_says_how_many():
    inbox = Inbox(backend, 3, ERRORS)

    for number in range(10):
        inbox.put(note(number))

    assert drained(inbox) == [Missed(7), 7, 8, 9]


def test_dropped_marker_makes_the_number_unknown():
    inbox = Inbox(backend, 2, ERRORS)
    inbox.put(Missed(None))

    for number in range(4):
        inbox.put(note(number))

    assert drained(inbox) == [Missed(None), 2, 3]


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_taken_and_missed_add_up(limit, puts):
    inbox = Inbox(backend, limit, ERRORS)
    got = []
    sent = 0

    for put in puts:
        if put:
            inbox.put(note(sent))
            sent += 1
        elif (item := inbox.take()) is not None:
            got.append(content(item))
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
    inbox = Inbox(backend, 3, ERRORS)
    task = backend.spawn(inbox.put, note(7))

    assert content(inbox.get(5)) == 7
    assert task.join(10)


def test_get_gives_up_in_time():
    assert Inbox(backend, 3, ERRORS).get(0.01) is None


def test_finished_inbox_gives_what_it_has_and_waits_no_more():
    inbox = Inbox(backend, 3, ERRORS)
    inbox.put(note(7))

    inbox.finish(InterfaceError("over"))

    assert content(inbox.get()) == 7
    assert inbox.get() is None
    assert str(inbox.reason()) == "over"
    assert inbox.reason() is not inbox.over


def test_finish_wakes_who_waits():
    inbox = Inbox(backend, 3, ERRORS)
    task = backend.spawn(inbox.finish, InterfaceError("over"))

    assert inbox.get(5) is None
    assert task.join(10)


class Asleep(Exception):
    """A wait that has not been ended."""


class Insomnia(Event):
    """An event whose wait raises instead of blocking."""

    def wait(self, timeout=None):
        if not self.is_set():
            sys.settrace(None)
            raise Asleep
        return True


class Insomniac(Threads):
    """A backend in which nothing blocks."""

    event = Insomnia


class AtPlace:
    """Calls a function at the nth instruction of the inbox's code, as another thread may do."""

    def __init__(self, nth, fn):
        self.called = False
        self._left, self._fn = nth, fn

    def __enter__(self):
        sys._getframe().f_trace_opcodes = True  # Python 3.12 requires one before it traces any
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _enter(self, frame, event, arg):
        if frame.f_code.co_filename != Inbox.get.__code__.co_filename:
            return None
        frame.f_trace = self._step  # Python 3.13 requires it before the next line
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame, event, arg):
        if event == "opcode":
            self._left -= 1
            if self._left < 0 and not self.called:
                self.called = True
                self._fn()
        return self._step


@pytest.mark.parametrize("ends", [False, True])
def test_get_misses_nothing_that_happens_anywhere_in_it(ends):
    places = 0
    while True:
        inbox = Inbox(Insomniac(), 10, ERRORS)
        happen = partial(inbox.finish, InterfaceError()) if ends else partial(inbox.put, note(7))
        at = AtPlace(places, happen)
        try:
            with at:
                item = inbox.get()
        except Asleep:
            break
        assert at.called
        assert item is None if ends else content(item) == 7
        places += 1

    assert not at.called
    assert places > 50
