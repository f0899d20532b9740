"""The check before the core waits for a socket to become writable."""

import socket

from greenpg.threads import write_check


def test_socket_is_writable_until_its_buffer_is_full():
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        check = write_check(one.fileno())
        before = bool(check(0))
        while check(0):
            one.send(bytes(65536))

        full = bool(check(0))
        other.close()

        assert (before, full) == (True, False)
        assert check(0), "the next send raises the error"
