"""The leak checks find descriptors, threads, tasks and sessions that are left behind."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import greenlet
import psycopg2
import pytest

from greenpg.embedded import running
from greenpg_conformance.toolkit.leaks import (
    Leaked,
    Sessions,
    descriptors,
    no_leaks,
    tasks,
    threads,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_clean_block_passes(pair):
    with no_leaks(descriptors, threads):
        os.close(os.dup(pair[0].fileno()))


def test_copy_of_a_known_socket_is_a_leak(pair):
    with pytest.raises(Leaked, match="socket"), no_leaks(descriptors, settle=0.05):
        copy = os.dup(pair[0].fileno())

    os.close(copy)


def test_number_taken_over_by_another_file_is_a_leak(pair):
    with open(os.devnull) as null, pytest.raises(Leaked), no_leaks(descriptors, settle=0.05):
        os.dup2(null.fileno(), pair[0].fileno())


def test_running_thread_is_a_leak():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="straggler")

    with pytest.raises(Leaked, match="straggler"), no_leaks(threads, settle=0.05):
        thread.start()

    stop.set()
    thread.join()


def test_what_goes_while_settling_is_no_leak(pair):
    copies: list[int] = []

    with no_leaks(descriptors, sleep=lambda _seconds: os.close(copies.pop())):
        copies.append(os.dup(pair[0].fileno()))

    assert not copies


def test_what_only_the_garbage_collector_closes_is_no_leak():
    class Holder:
        def __init__(self) -> None:
            self.cycle = self
            self.descriptor = os.open(os.devnull, os.O_RDONLY)

        def __del__(self) -> None:
            os.close(self.descriptor)

    with no_leaks(descriptors):
        Holder()


def test_error_of_the_block_is_not_masked(pair):
    copies: list[int] = []

    def leak_and_fail() -> None:
        copies.append(os.dup(pair[0].fileno()))
        raise KeyError

    with pytest.raises(KeyError), no_leaks(descriptors, settle=0.05):
        leak_and_fail()

    os.close(copies[0])


def test_suspended_task_is_a_leak():
    suspended = []

    def suspend() -> None:
        suspended.append(greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch()))
        suspended[0].switch()

    with pytest.raises(Leaked, match="task"), no_leaks(tasks, settle=0.05):
        suspend()

    suspended[0].switch()


def test_open_session_is_a_leak(dsn, sessions):
    conn = psycopg2.connect(dsn)

    with closing(conn):
        assert f"session {conn.info.backend_pid}" in str(sessions())

    with no_leaks(sessions):
        psycopg2.connect(dsn).close()


def test_sessions_outlive_a_restart_of_the_server():
    with running() as server, closing(Sessions(server.dsn, "one")) as sessions:
        server.restart()

        with closing(psycopg2.connect(server.dsn, application_name="one")):
            assert len(sessions()) == 1
