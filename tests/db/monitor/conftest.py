"""A monitor that serves, and a client that blocks no other task."""

from __future__ import annotations

import _socket
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from greenpg import monitor
from greenpg.backend import current
from greenpg.pool import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 10.0
END = b"\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to a server, read in an OS thread."""

    def __init__(self, port: int) -> None:
        self._sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self._sock.settimeout(SECONDS)
        self._data = b""
        try:
            self._sock.connect(("127.0.0.1", port))
        except OSError:
            self._sock.close()
            raise

    def send(self, text: str) -> None:
        self._sock.send(text.encode("latin-1"))

    def ask(self, target: str, *headers: str, method: str = "GET") -> None:
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]))

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except ConnectionResetError:  # gevent prints what a function in a thread raises
            return b""

    def until(self, end: bytes) -> bytes:
        """Return what comes before `end`."""
        while end not in self._data:
            data = current().in_thread(self._receive)
            assert data, f"closed after {self._data!r}"
            self._data += data
        found, _, self._data = self._data.partition(end)
        return found

    def rest(self) -> bytes:
        """Return what comes before the server closes."""
        while data := current().in_thread(self._receive):
            self._data += data
        found, self._data = self._data, b""
        return found

    def event(self) -> Any:
        """Return the next of the server's events."""
        text = self.until(b"\n\n")
        assert text.startswith(b"data: ")
        return json.loads(text.removeprefix(b"data: "))

    def close(self) -> None:
        self._sock.close()


def get(server: monitor._server.Server, target: str, *headers: str, method: str = "GET") -> Answer:
    """Return the whole answer to a request."""
    with closing(Client(server.port)) as client:
        client.ask(target, *headers, method=method)
        head, _, body = client.rest().partition(END)
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(first.split()[1]), {name: value for name, _, value in pairs}, body)


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Serve monitors, to be closed after the test."""
    made = []

    def served(**options: Any) -> Any:
        made.append(monitor.serve(0, **options))
        return made[-1]

    yield served
    for one in made:
        one.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Client]]:
    """Open streams of events, to be closed after the test."""
    made = []

    def opened(server: Any, target: str = "/events") -> Client:
        made.append(Client(server.port))
        made[-1].ask(target)
        made[-1].until(END)
        return made[-1]

    yield opened
    for one in made:
        one.close()


@pytest.fixture
def make(dsn: str) -> Iterator[Callable[..., Any]]:
    """Make pools, to be closed after the test."""
    made = []

    def pool(conninfo: str = dsn, **options: Any) -> Any:
        made.append(ConnectionPool(conninfo, **{"min_size": 1, "name": "web", **options}))
        return made[-1]

    yield pool
    for one in made:
        one.close()
