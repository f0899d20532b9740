"""The proxy delays, stalls, cuts and refuses, with TLS and without."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from greenpg_conformance.toolkit.proxy import CERTIFICATE, Proxy

Talk = Callable[[], socket.socket]


def echo(listener: socket.socket) -> None:
    while True:
        try:
            conn, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=echo_one, args=(conn,)).start()


def echo_one(conn: socket.socket) -> None:
    with conn:
        try:
            while data := conn.recv(65536):
                conn.sendall(data)
        except OSError:
            return


@contextmanager
def echo_server() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=echo, args=(listener,))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo_server() as port, Proxy(f"host=127.0.0.1 port={port} dbname=x") as made:
        yield made


@pytest.fixture
def talk(proxy: Proxy) -> Iterator[Talk]:
    made: list[socket.socket] = []

    def connected() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=10))
        return made[-1]

    yield connected
    for conn in made:
        conn.close()


def exchange(conn: socket.socket, data: bytes) -> bytes:
    conn.sendall(data)
    return receive(conn, len(data))


def receive(conn: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := conn.recv(size - len(got))):
        got += data
    return got


def silent(conn: socket.socket, seconds: float) -> bool:
    conn.settimeout(seconds)
    try:
        conn.recv(1)
    except TimeoutError:
        return True
    finally:
        conn.settimeout(10)
    return False


def test_data_passes_both_ways(proxy, talk):
    data = bytes(range(256)) * 4096

    assert exchange(talk(), data[:100]) == data[:100]
    with closing(talk()) as conn:
        sender = threading.Thread(target=conn.sendall, args=(data,))
        sender.start()
        got = receive(conn, len(data))
        sender.join()
    assert got == data


def test_dsn_leads_through_the_proxy_and_keeps_the_rest(proxy):
    assert f"host=127.0.0.1 port={proxy.port}" in proxy.dsn
    assert "dbname=x" in proxy.dsn


@pytest.mark.parametrize(("way", "trips"), [("down", 1), ("up", 1), ("both", 2)])
def test_delay_holds_back_what_goes_that_way(proxy, talk, way, trips):
    conn = talk()
    exchange(conn, b"warm")
    proxy.delay(0.1, way)
    begun = time.monotonic()

    exchange(conn, b"slow")

    assert time.monotonic() - begun >= 0.1 * trips


def test_drip_delivers_piece_by_piece(proxy, talk):
    conn = talk()
    exchange(conn, b"warm")
    proxy.drip(2, 0.02)
    begun = time.monotonic()

    conn.sendall(b"12345678")
    first = conn.recv(100)

    assert first == b"12"
    assert receive(conn, 6) == b"345678"
    assert time.monotonic() - begun >= 0.06


def test_stall_holds_back_until_flow(proxy, talk):
    conn = talk()
    proxy.stall()
    conn.sendall(b"held")

    assert silent(conn, 0.2)
    proxy.flow()

    assert receive(conn, 4) == b"held"


def test_scope_present_spares_connections_made_later(proxy, talk):
    old = talk()
    exchange(old, b"warm")

    proxy.stall(scope="present")

    assert exchange(talk(), b"fine") == b"fine"
    old.sendall(b"held")
    assert silent(old, 0.1)


def test_scope_coming_spares_connections_at_hand(proxy, talk):
    old = talk()
    exchange(old, b"warm")

    proxy.stall(scope="coming")

    assert exchange(old, b"fine") == b"fine"
    new = talk()
    new.sendall(b"held")
    assert silent(new, 0.1)


def test_cut_resets_even_a_stalled_connection(proxy, talk):
    conn = talk()
    exchange(conn, b"warm")
    proxy.stall()

    assert proxy.cut() == 1

    with pytest.raises(ConnectionResetError):
        conn.recv(1)


def test_refuse_and_admit(proxy, talk):
    old = talk()
    exchange(old, b"warm")

    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        talk()
    assert exchange(old, b"fine") == b"fine"
    proxy.admit()
    assert exchange(talk(), b"back") == b"back"


def test_close_of_the_client_reaches_the_server(proxy, talk):
    conn = talk()
    exchange(conn, b"warm")
    assert proxy.links() == 1

    conn.close()

    deadline = time.monotonic() + 5
    while proxy.links():
        assert time.monotonic() < deadline
    assert proxy.accepted() == 1


def test_tls_clients_reach_a_server_without_tls(dsn):
    with Proxy(dsn, tls=True) as proxy:
        verified = make_dsn(proxy.dsn, sslmode="verify-full", sslrootcert=str(CERTIFICATE))

        with closing(psycopg2.connect(verified)) as conn, conn.cursor() as cur:
            cur.execute("select repeat('x', 1000000)")

            assert conn.info.ssl_in_use
            assert [len(text) for (text,) in cur] == [1_000_000]


def test_tls_is_not_forced_on_clients(dsn):
    with Proxy(dsn, tls=True) as proxy:
        plain = make_dsn(proxy.dsn, sslmode="disable")

        with closing(psycopg2.connect(plain)) as conn:
            assert not conn.info.ssl_in_use


def test_delay_and_cut_reach_tls_clients(dsn):
    with Proxy(dsn, tls=True) as proxy, closing(psycopg2.connect(proxy.dsn)) as conn:
        proxy.delay(0.1)
        begun = time.monotonic()
        conn.cursor().execute("select 1")
        assert time.monotonic() - begun >= 0.1

        proxy.cut()

        with pytest.raises(psycopg2.OperationalError):
            conn.cursor().execute("select 1")


def test_end_while_the_server_is_being_reached_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with full_listener() as port:
        proxy = Proxy(f"host=127.0.0.1 port={port} dbname=x")
        with socket.create_connection(("127.0.0.1", proxy.port)):
            while not proxy.accepted():
                time.sleep(0.01)
            proxy.close()

    assert capfd.readouterr().err == ""


@contextmanager
def full_listener() -> Iterator[int]:
    """A listener whose queue is full, so that connecting to it does not end."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
        for one in waiting:
            one.close()
