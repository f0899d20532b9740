"""A small HTTP server for the monitor, whose waits are the backend's: GET and HEAD, no bodies."""

from __future__ import annotations

import _socket
import errno
import ipaddress
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from posix import close  # a monkey-patch may have replaced that of os
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from greenpg._fork_hooks import Order, in_child
from greenpg._instances import Instances
from greenpg._session.forks import dead_socket
from greenpg.backend import READ, WRITE

if TYPE_CHECKING:
    from greenpg.backend import Backend, Task, Waiter

    from ._application import Environ, Headers, Monitor

    Application: TypeAlias = Callable[[Environ, Any], Iterable[bytes]]

HEAD_SECONDS: Final = 10.0  # for a request to arrive
SEND_SECONDS: Final = 30.0  # until a client that reads nothing is given up
HEAD_BYTES: Final = 16384
MOST: Final = 100  # requests at once; as many more are refused, others are not read
REST: Final = 0.2  # seconds, where no descriptor is left
BACKLOG: Final = 64
END: Final = b"\r\n\r\n"
LOCAL: Final = ("localhost", "")  # "": HTTP/1.0 clients send none
LATER: Final = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}


class Gone(Exception):
    """The client has hung up, is too slow, or sends no request."""


class Server:
    """Serves a monitor until `close()`; its tasks do not keep the process from ending.

    A forked child does not serve: it gives up its copies of the sockets, and may call `serve`.
    """

    def __init__(self, monitor: Monitor, backend: Backend, host: str, port: int) -> None:
        self.monitor = monitor
        self._backend = backend
        self._exchanges: set[_Exchange] = set()
        self._closed = False
        self._listener = _listen(host, port)
        self.host, self.port = self._listener.getsockname()[:2]
        # a web site whose name leads to this address (DNS rebinding) must not read what is here
        self._checks_host = ipaddress.ip_address(self.host).is_loopback
        self._waiter = backend.waiter()
        self._accepting = backend.spawn(self._accept)
        _servers.add(self)
        monitor.start()

    @property
    def url(self) -> str:
        """The address of the page, without the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def close(self) -> None:
        """End the server, the requests and the monitor; outside the event loop wait for the end."""
        self._closed = True
        self.monitor.close()
        exchanges = list(self._exchanges)
        for sock in [self._listener, *(one.sock for one in exchanges)]:
            with suppress(OSError):
                sock.shutdown(_socket.SHUT_RDWR)  # ends the waits
        if self._backend.can_wait():
            for task in [self._accepting, *(one.task for one in exchanges)]:
                if task is not None:
                    task.join(1.0)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def leave(self) -> None:
        """Give everything up in a forked child, where copies of green threads may run on."""
        self._closed = True
        self.monitor.close()
        dead = dead_socket()
        ours = [
            (self._listener, self._waiter),
            *((one.sock, one.waiter) for one in self._exchanges),
        ]
        for sock, waiter in ours:
            for fd in (sock.fileno(), waiter.fileno()):
                if fd >= 0:
                    os.dup2(dead, fd, inheritable=False)
            waiter.interrupt(Gone())
        close(dead)

    # Tasks

    def _accept(self) -> None:
        with suppress(Gone), closing(self._listener) as listener, closing(self._waiter) as waiter:
            while not self._closed:
                waiter.wait(listener.fileno(), READ, None)
                try:
                    fd, _ = listener._accept()
                except OSError as error:
                    if error.errno not in LATER and not self._closed:
                        self._backend.sleep(REST)
                else:
                    self._begin(_socket.socket(fileno=fd))

    def _begin(self, sock: Any) -> None:
        count = len(self._exchanges)
        if count >= 2 * MOST:
            sock.close()
            return
        exchange = _Exchange(sock, self._backend.waiter())
        self._exchanges.add(exchange)
        answer = self._answer if count < MOST else _refuse
        try:
            exchange.task = self._backend.spawn(self._serve, exchange, answer)
        except BaseException:
            self._end(exchange)
            raise

    def _serve(self, exchange: _Exchange, answer: Application) -> None:
        try:
            exchange.run(answer, self._environ())
        except (Gone, OSError):
            pass
        finally:
            self._end(exchange)

    def _end(self, exchange: _Exchange) -> None:
        self._exchanges.discard(exchange)
        exchange.waiter.close()
        exchange.sock.close()

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if self._checks_host and not _is_local(environ.get("HTTP_HOST", "")):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"ask for localhost or for an address\n"]
        return self.monitor(environ, start_response)

    def _environ(self) -> Environ:
        return {
            "SCRIPT_NAME": "",
            "SERVER_NAME": self.host,
            "SERVER_PORT": str(self.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }


class _Exchange:
    """One request and its answer, after which the connection is closed."""

    def __init__(self, sock: Any, waiter: Waiter) -> None:
        sock.setblocking(False)
        self.sock, self.waiter = sock, waiter
        self.task: Task | None = None

    def run(self, application: Application, environ: Environ) -> None:
        environ.update(_request(self._head()))
        body = application(environ, self._start_response)
        try:
            for part in body:
                if environ["REQUEST_METHOD"] != "HEAD":
                    self._send(part)
        finally:
            getattr(body, "close", lambda: None)()

    def _head(self) -> bytes:
        head, until = b"", monotonic() + HEAD_SECONDS
        while END not in head:
            data = self._try(partial(self.sock.recv, HEAD_BYTES), READ, until)
            if not data or len(head) > HEAD_BYTES:
                raise Gone
            head += data
        return head.partition(END)[0]

    def _start_response(self, status: str, headers: Headers) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        self._send("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))

    def _send(self, data: bytes) -> None:
        until = monotonic() + SEND_SECONDS
        while data:
            data = data[self._try(partial(self.sock.send, data), WRITE, until) :]

    def _try(self, call: Callable[[], Any], events: int, until: float) -> Any:
        """Return the result of a socket's call, once it does not have to wait."""
        while (result := _at_once(call)) is None:
            left = until - monotonic()
            if left <= 0 or not self.waiter.wait(self.sock.fileno(), events, left):
                raise Gone
        return result


def _refuse(_environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
    return [f"{MOST} requests are open: close other pages\n".encode()]


def _at_once(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BlockingIOError:
        return None


def _request(head: bytes) -> Environ:
    line, *fields = head.decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    target = rest.partition(" ")[0]
    if not (target.startswith("/") and target.isprintable()):
        raise Gone
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
    }
    for name, _, value in (field.partition(":") for field in fields):
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
    return environ


def _listen(host: str, port: int) -> Any:
    ((family, *_, address),) = _socket.getaddrinfo(
        host, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE
    )[:1]
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_local(host: str) -> bool:
    """Return True for localhost and for addresses, to which no name has led."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in LOCAL or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


_servers: Final[Instances[Server]] = Instances()


def _after_fork() -> None:
    for server in _servers.all():
        server.leave()


in_child(Order.MONITORS, _after_fork)
