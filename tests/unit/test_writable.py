"""The check before the core waits for a socket to become writable."""

import socket

from greenpg.threads import is_connected, write_check


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


def test_socket_is_connected_until_either_side_has_hung_up():
    one, other = socket.socketpair()
    with one:
        with other:
            other.send(b"!")
            before = is_connected(one.fileno())
        after = is_connected(one.fileno())

    assert (before, after) == (True, False)


def test_socket_that_was_refused_is_not_connected():
    with socket.socket() as bound, socket.socket() as refused:
        bound.bind(("127.0.0.1", 0))
        refused.connect_ex(bound.getsockname())

        assert not is_connected(refused.fileno())
    assert not is_connected(-1)
