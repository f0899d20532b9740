"""The process's wait callback: psycopg2's functions, where greenpg's callback replaces None."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg2
import pytest

import greenpg
from greenpg._psycopg2 import wait_callback as _wait


@pytest.fixture(autouse=True)
def same_as_before():
    before = greenpg.get_wait_callback()
    yield
    psycopg2.extensions.set_wait_callback(before)


class Callback:
    """Waits as the manual's example does, and counts."""

    def __init__(self):
        self.calls = 0
        self.error = None

    def __call__(self, conn):
        self.calls += 1
        if self.error is not None:
            raise self.error
        psycopg2.extras.wait_select(conn)


def one(conn):
    cur = conn.cursor()
    cur.execute("select 1")
    return cur.fetchone()[0]


def test_greenpgs_own_callback_is_in_force():
    assert greenpg.get_wait_callback() is _wait.wait_callback
    assert psycopg2.extensions.get_wait_callback() is _wait.wait_callback


@pytest.mark.parametrize("setter", [greenpg, greenpg.extensions, psycopg2.extensions])
def test_users_callback_drives_every_wait(connect, setter):
    callback = Callback()
    setter.set_wait_callback(callback)

    conn = connect()
    connected = callback.calls
    one(conn)
    conn.rollback()

    assert connected >= 1
    assert callback.calls >= connected + 3
    assert greenpg.get_wait_callback() is callback


def test_users_callback_is_kept_by_connects_to_come(connect):
    callback = Callback()
    greenpg.set_wait_callback(callback)

    connect()
    connect()

    assert greenpg.get_wait_callback() is callback


def test_none_puts_ours_back(conn):
    callback = Callback()
    greenpg.set_wait_callback(callback)

    greenpg.set_wait_callback(None)
    one(conn)

    assert callback.calls == 0
    assert greenpg.get_wait_callback() is _wait.wait_callback


def test_what_the_callback_raises_closes_the_connection(connect):
    conn = connect()
    callback = Callback()
    callback.error = LookupError("no waiting today")
    greenpg.set_wait_callback(callback)

    with pytest.raises(LookupError, match="no waiting today"):
        one(conn)

    assert conn.closed
    greenpg.set_wait_callback(None)
    assert one(connect()) == 1


def test_error_of_the_callback_while_connecting_propagates(connect):
    callback = Callback()
    callback.error = LookupError("no waiting today")
    greenpg.set_wait_callback(callback)

    with pytest.raises(LookupError, match="no waiting today"):
        connect()

    greenpg.set_wait_callback(None)
    assert one(connect()) == 1


def test_callback_that_returns_early_while_connecting_is_an_error(connect):
    greenpg.set_wait_callback(lambda conn: None)

    with pytest.raises(psycopg2.Error):
        connect()

    greenpg.set_wait_callback(None)
    assert one(connect()) == 1


def test_callback_that_returns_early_leaves_a_usable_process(connect):
    conn = connect()
    greenpg.set_wait_callback(lambda conn: None)

    with suppress(psycopg2.Error):
        one(conn)
    greenpg.set_wait_callback(None)

    assert one(connect()) == 1


def test_callback_that_is_not_callable_is_a_type_error(connect):
    not_callable: Any = "text"
    greenpg.set_wait_callback(not_callable)

    with pytest.raises(TypeError):
        connect()

    greenpg.set_wait_callback(None)
    assert one(connect()) == 1


def test_lock_holds_under_a_users_callback(conn, spawn):
    greenpg.set_wait_callback(Callback())

    def ask(number):
        cur = conn.cursor()
        cur.execute("select %s from pg_sleep(0.01)", (number,))
        return cur.fetchone()[0]

    jobs = [spawn(ask, number) for number in range(3)]

    assert [job.result() for job in jobs] == [0, 1, 2]
