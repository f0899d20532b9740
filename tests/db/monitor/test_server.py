"""The monitor's own server: whom it answers, and how it and its clients end."""

from __future__ import annotations

import _socket
from contextlib import closing

import pytest

from greenpg import monitor
from greenpg.backend import current
from greenpg.monitor import Monitor, _server
from tests import programs
from tests.db.conftest import until
from tests.db.monitor.conftest import Client, get

TOKEN = "a secret &c"
QUERY = "?token=a+secret+%26c"
BEARER = f"Authorization: Bearer {TOKEN}"


def test_it_listens_on_this_machine_only_unless_told_otherwise(serve):
    server = serve()

    assert server.host == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.port}/"


def test_it_listens_where_it_is_told(serve):
    server = serve(host="0.0.0.0")

    assert server.host == "0.0.0.0"
    assert get(server, "/").status == 200


def test_a_port_in_use_is_an_error(serve):
    server = serve()

    with pytest.raises(OSError, match="in use"):
        monitor.serve(server.port, backend=current())


@pytest.mark.parametrize("path", ["/", "/data", "/events"])
def test_without_the_token_nothing_is_shown(serve, path):
    server = serve(token=TOKEN)

    for target, *headers in [
        (path,),
        (f"{path}?token=",),
        (f"{path}?token=wrong",),
        (f"{path}{QUERY}x",),
        (path, "Authorization: Bearer wrong"),
        (path, f"Authorization: Basic {TOKEN}"),
    ]:
        refused = get(server, target, *headers)
        assert (refused.status, refused.body) == (401, b"append ?token=...\n")


@pytest.mark.parametrize("path", ["/", "/data"])
def test_with_the_token_it_is_shown(serve, path):
    server = serve(token=TOKEN)

    assert get(server, path + QUERY).status == 200
    assert get(server, path, BEARER).status == 200


def test_a_stream_needs_the_token_too(serve, listen):
    server = serve(token=TOKEN)

    assert listen(server, f"/events{QUERY}").event()["tick"] >= 1


def test_an_empty_token_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Monitor(token="")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("[", 403),
        ("LOCALHOST:8010", 200),
        ("127.0.0.1", 200),
        ("[::1]:8010", 200),
    ],
)
def test_a_name_that_leads_here_reads_nothing(serve, host, status):
    """Of a site whose name was rebound to 127.0.0.1, a browser runs the scripts."""
    with closing(Client(serve().port)) as client:
        client.send(f"GET /data HTTP/1.1\r\nHost: {host}\r\n\r\n")

        assert client.until(b" ") == b"HTTP/1.1"
        assert client.until(b" ") == str(status).encode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/data", 405), ("HEAD", "/data", 200), ("HEAD", "/events", 200), ("GET", "/x", 404)],
)
def test_other_requests_are_answered(serve, method, path, status):
    found = get(serve(), path, method=method)

    assert found.status == status
    assert (found.body == b"") == (method == "HEAD")


@pytest.mark.parametrize(
    "text",
    ["\r\n\r\n", "x\r\n\r\n", "GET\r\n\r\n", "GET * HTTP/1.1\r\n\r\n", "GET /\n HTTP/1.1\r\n\r\n"],
)
def test_what_is_no_request_is_not_answered(serve, text):
    server = serve()
    with closing(Client(server.port)) as client:
        client.send(text)

        assert client.rest() == b""

    assert get(server, "/").status == 200


def test_a_head_without_end_is_not_read_for_ever(serve):
    with closing(Client(serve().port)) as client:
        client.send("GET / HTTP/1.1\r\n" + "X: y\r\n" * 8000)

        with pytest.raises(AssertionError, match="closed after"):
            client.until(b"HTTP")


def test_a_client_that_is_slow_to_ask_is_given_up_and_holds_up_no_other(serve, monkeypatch):
    monkeypatch.setattr(_server, "HEAD_SECONDS", 0.3)
    server = serve()
    with closing(Client(server.port)) as slow:
        slow.send("GET / HT")

        assert get(server, "/").status == 200
        assert slow.rest() == b""


def test_a_client_that_reads_nothing_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(_server, "SEND_SECONDS", 0.3)
    server = serve()
    monkeypatch.setattr(server.monitor, "_feed", type("Endless", (), {
        "events": lambda self: iter(lambda: b"x" * 1_000_000, b""), "close": lambda self: None,
    })())  # fmt: skip
    with closing(Client(server.port)) as client:
        client.ask("/events")
        until(lambda: server._exchanges, "it is served")

        until(lambda: not server._exchanges, "it is given up")


def test_no_more_than_so_many_are_served_at_once(serve, listen, monkeypatch):
    monkeypatch.setattr(_server, "MOST", 2)
    server = serve()
    first, _ = listen(server), listen(server)

    refused = get(server, "/events")

    assert (refused.status, refused.body) == (503, b"2 requests are open: close other pages\n")
    first.close()
    until(lambda: len(server._exchanges) < 2, "its end is seen")
    assert get(server, "/").status == 200


def test_no_more_than_so_many_are_refused_at_once(serve, monkeypatch):
    monkeypatch.setattr(_server, "MOST", 1)
    server = serve()
    with closing(Client(server.port)), closing(Client(server.port)) as second:
        until(lambda: len(server._exchanges) == 2, "both are read")
        with closing(Client(server.port)) as third:
            assert third.rest() == b""

        second.ask("/")
        assert second.until(b"\r\n") == b"HTTP/1.1 503 Service Unavailable"


def test_close_ends_the_streams_and_frees_the_port(serve, listen):
    server = serve()
    stream = listen(server)
    stream.event()

    server.close()

    assert not server._exchanges
    stream.rest()
    with pytest.raises(ConnectionRefusedError):
        Client(server.port)
    with monitor.serve(server.port, backend=current()) as again:
        assert get(again, "/").status == 200


def test_a_server_can_be_closed_at_once_and_twice():
    server = monitor.serve(0, backend=current())
    server.close()

    server.close()

    with pytest.raises(ConnectionRefusedError):
        Client(server.port)


FORK = """
import _socket, os, sys
import greenpg
from greenpg import monitor
from greenpg.backend import current

if sys.argv[1] == "gevent":
    from gevent.os import fork  # which libuv requires
else:
    from os import fork

def get(port):
    client = _socket.socket()
    client.connect(("127.0.0.1", port))
    client.settimeout(10)
    client.send(b"GET /data HTTP/1.1\\r\\n\\r\\n")
    text = b""
    while data := client.recv(65536):
        text += data
    client.close()
    return int(text.partition(b'"pid": ')[2].partition(b",")[0])

greenpg.use(sys.argv[1])
server = monitor.serve(0)
assert current().in_thread(get, server.port) == os.getpid()
stream = _socket.socket()
stream.connect(("127.0.0.1", server.port))
stream.send(b"GET /events HTTP/1.1\\r\\n\\r\\n")
while not server._exchanges:
    current().sleep(0.01)
current().sleep(0.1)
read, write = os.pipe()
child = fork()
if child:
    assert os.read(read, 1) == b"!"
    assert current().in_thread(get, server.port) == os.getpid()
    server.close()
    try:
        monitor.serve(server.port).close()  # the child has no copy of the listening socket
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    sys.exit()
current().sleep(0.5)
with monitor.serve(0) as own:
    assert current().in_thread(get, own.port) == os.getpid()
os.write(write, b"!")
current().sleep(30)
"""


def test_a_forked_child_does_not_serve_for_its_parent():
    done = programs.run(FORK, current().name)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


END = """
import sys
import greenpg
from greenpg import monitor
greenpg.use(sys.argv[1])
monitor.serve(0)
"""


def test_it_does_not_keep_the_process_from_ending():
    done = programs.run(END, current().name)

    assert (done.returncode, done.stderr) == (0, "")


def test_it_works_where_only_ipv6_is(serve):
    try:
        server = serve(host="::1")
    except OSError:
        pytest.skip("capability missing: no IPv6")

    assert server.url == f"http://[::1]:{server.port}/"
    with closing(_socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)) as client:
        client.settimeout(5)
        client.connect(("::1", server.port))
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert current().in_thread(client.recv, 12) == b"HTTP/1.1 200"
