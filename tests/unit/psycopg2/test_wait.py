"""`greenpg.wait` for an asynchronous connection."""

import socket

import psycopg2.extensions as ext
import pytest

import greenpg


class Talkative:
    """A connection whose server sends on and on."""

    status = ext.STATUS_READY

    def __init__(self, sock):
        self.fileno = sock.fileno

    def poll(self):
        return ext.POLL_READ


def test_timeout_counts_also_if_data_is_always_there():
    here, there = socket.socketpair()
    with here, there:
        there.send(b"data")

        with pytest.raises(TimeoutError):
            greenpg.wait(Talkative(here), 0.05)
