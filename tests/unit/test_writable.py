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


def test_socket_is_connected_until_both_sides_have_hung_up():
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as one:
        server.accept()[0].close()
        hung_up = one.recv(1)
        before = is_connected(one.fileno())
        one.shutdown(socket.SHUT_WR)
        after = is_connected(one.fileno())

    assert (hung_up, before, after) == (b"", True, False)


def test_socket_that_was_refused_is_not_connected():
    with socket.socket() as bound, socket.socket() as refused:
        bound.bind(("127.0.0.1", 0))
        refused.connect_ex(bound.getsockname())

        assert not is_connected(refused.fileno())
    assert not is_connected(-1)
