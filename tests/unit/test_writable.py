"""What the core asks before it waits for a socket to take more."""

import socket

from greenpg.threads import is_writable


def test_socket_is_writable_until_its_buffer_is_full():
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        before = is_writable(one.fileno())
        while is_writable(one.fileno()):
            one.send(bytes(65536))

        full = is_writable(one.fileno())
        other.close()

        assert (before, full) == (True, False)
        assert is_writable(one.fileno()), "an error is for the next send to tell"
