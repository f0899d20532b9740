"""Connecting is green: names, timeouts, several hosts, what the server is to be, service files."""

from __future__ import annotations

import _socket  # for an OS thread: no monkey-patch replaces it
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final
from unittest.mock import patch

from psycopg2 import OperationalError
from psycopg2._psycopg import connection as c_connection
from psycopg2.errors import DivisionByZero
from psycopg2.extensions import make_dsn, parse_dsn

import greenpg
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import each, needs, over_psycopg, raises
from greenpg_conformance.storm.interrupts import CountingBackend, Interrupt, Run
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import INTERRUPTS, ask, interrupted

HERE: Final = "127.0.0.1"
NOWHERE: Final = "::1"  # the proxy does not listen there
NAME: Final = "db.greenpg.test"  # which no name server knows
TIMEOUT: Final = 1.0
PRECISION: Final = 0.2
CONNECTS: Final = 16


class Resolver:
    """A backend that resolves some names; `asked` is who asked for which."""

    def __init__(self, backend: Any, names: dict[str, list[str]]) -> None:
        self.asked: list[str] = []
        self._backend = backend
        self._names = names

    def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._names[host]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _dsn(ctx: Context, host: str = HERE, port: str = "", **options: str) -> Any:
    """Return the DSN of the server behind the proxy, with other hosts."""
    params: dict[str, Any] = {**parse_dsn(ctx.proxy().dsn), "host": host, **options}
    params.pop("hostaddr", None)
    return make_dsn(**{**params, "port": port or str(ctx.proxy().port)})


@contextmanager
def listening(backlog: int = 8) -> Iterator[str]:
    """Give the port of a socket to which one can connect, but which never says a word."""
    with socket.socket() as silent:
        silent.bind((HERE, 0))
        silent.listen(backlog)
        yield str(silent.getsockname()[1])


@contextmanager
def server_that_closes(ctx: Context, answer: bytes | None, stays: bool = False) -> Iterator[int]:
    """Give a port at which a client is hung up on, after an answer to its first bytes if any.

    With `stays`, it is hung up on only once it has left.
    """
    listener: Any = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind((HERE, 0))
    listener.listen(5)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client = _socket.socket(fileno=listener._accept()[0])
                if answer is not None:
                    client.recv(1024)
                    client.send(answer)
                while stays and client.recv(1024):
                    pass
                client.close()

    thread = ctx.native(serve)
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(_socket.SHUT_RDWR)
        thread.join()
        listener.close()


@contextmanager
def silent_after_handshake(ctx: Context) -> Iterator[int]:
    """Give a port at which all are let in and nothing is answered; psycopg2 sends a SET there."""
    parameters = {"DateStyle": "SQL, DMY", "client_encoding": "UTF8", "server_version": "17.0"}
    words = [f"{key}\0{value}\0".encode() for key, value in parameters.items()]
    messages = [b"R\0\0\0\x08\0\0\0\0", *(b"S%b%b" % (_size(word), word) for word in words)]
    messages += [b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x01", b"Z\0\0\0\x05I"]
    with server_that_closes(ctx, b"".join(messages), stays=True) as port:
        yield port


def _size(word: bytes) -> bytes:
    return (len(word) + 4).to_bytes(4, "big")


@contextmanager
def _refusing() -> Iterator[str]:
    with socket.socket() as bound:
        bound.bind((HERE, 0))
        yield str(bound.getsockname()[1])


@each("one name", "two names", "name and address", "address in vain")
def test_names_are_resolved_by_the_backend(ctx: Context, case: str) -> None:
    hosts = {"two names": f"{NAME},{NAME}", "name and address": f"{NAME},{HERE}"}.get(case, NAME)
    backend = Resolver(ctx.backend, {NAME: [NOWHERE] * (case == "address in vain") + [HERE]})

    conn = ctx.connect(_dsn(ctx, hosts), backend=backend)

    assert backend.asked == [NAME]
    assert conn.info.host == NAME
    assert parse_dsn(conn.dsn)["host"] == hosts
    assert ask(conn) == 7


def test_addresses_are_not_resolved(ctx: Context) -> None:
    backend = Resolver(ctx.backend, {})

    for dsn in (_dsn(ctx), ctx.proxy().dsn):
        assert ask(ctx.connect(dsn, backend=backend)) == 7
    assert backend.asked == []


def test_unknown_name(ctx: Context) -> None:
    backend = Resolver(ctx.backend, {})

    with raises(OperationalError, words=f'could not translate host name "{NAME}" to address'):
        ctx.connect(_dsn(ctx, NAME), backend=backend)


@each("refused", "unknown", "silent", "hanging up")
def test_next_host_is_tried(ctx: Context, case: str) -> None:
    first = "nobody.greenpg.test" if case == "unknown" else HERE
    backend = Resolver(ctx.backend, {NAME: [HERE]})
    with _refusing() as refused, listening() as silent, server_that_closes(ctx, None) as rude:
        port = {"silent": silent, "hanging up": str(rude)}.get(case, refused)
        dsn = _dsn(ctx, f"{first},{NAME}", f"{port},{ctx.proxy().port}", connect_timeout="1")

        with ctx.heartbeat():
            conn = ctx.connect(dsn, backend=backend)

    assert ask(conn) == 7
    assert conn.info.port == ctx.proxy().port
    assert parse_dsn(conn.dsn) == parse_dsn(dsn)


def test_errors_read_as_ever_after_several_hosts(ctx: Context) -> None:
    conn = ctx.connect(_dsn(ctx, f"{HERE},{HERE}"))

    with raises(DivisionByZero) as caught:
        conn.cursor().execute("select 1/0")

    assert str(caught.error) == "division by zero\n"
    assert caught.error.pgerror == "ERROR:  division by zero\n"


@each("connect_timeout", "PGCONNECT_TIMEOUT", "service file")
def test_silent_host_fails_at_its_timeout(ctx: Context, case: str) -> None:
    with listening() as port, _service(connect_timeout=1) as service:
        environ = {"PGCONNECT_TIMEOUT": "1"} if case == "PGCONNECT_TIMEOUT" else {}
        options = {"connect_timeout": {"connect_timeout": "1"}, "service file": service}
        dsn = _dsn(ctx, HERE, port, **options.get(case, {}))
        with patch.dict(os.environ, environ):
            _fails_after(ctx, dsn, TIMEOUT)


def test_every_host_has_the_timeout(ctx: Context) -> None:
    with listening() as one, listening() as other:
        dsn = _dsn(ctx, f"{HERE},{HERE}", f"{one},{other}", connect_timeout="1")

        error = _fails_after(ctx, dsn, 2 * TIMEOUT)

    assert f"port {one} failed: timeout expired" in error
    assert f"port {other} failed: timeout expired" in error


def _fails_after(ctx: Context, dsn: str, seconds: float, factory: Any = None) -> str:
    began, watch = monotonic(), Stopwatch()
    options = {"connection_factory": factory} if factory else {}
    with ctx.heartbeat(), raises(ctx.driver.operational, words="timeout expired") as caught:
        ctx.connect(dsn, **options)
    passed, took = monotonic() - began, watch.seconds()
    assert passed > seconds - PRECISION, f"after {passed:.2f} s"
    assert took < seconds + PRECISION, f"after {took:.2f} s"
    return str(caught.error)


def test_server_that_stops_answering_half_way_fails_at_the_timeout(ctx: Context) -> None:
    for size in (1, 9, 60):
        ctx.proxy().drip(size, 0.2, scope="coming")

        _fails_after(ctx, _dsn(ctx, HERE, connect_timeout="1"), TIMEOUT)


@each("one host", "several hosts", "class of the user's", "function")
def test_server_that_is_silent_after_the_handshake_fails_at_the_timeout(
    ctx: Context, case: str
) -> None:
    """psycopg2 sends a SET before it gives the connection away."""
    factories = {"class of the user's": _Own, "function": lambda *args: c_connection(*args)}
    hosts = f"{HERE},{HERE}" if case == "several hosts" else HERE
    with silent_after_handshake(ctx) as port:
        dsn = _dsn(ctx, hosts, str(port), sslmode="disable", connect_timeout="1")

        _fails_after(ctx, dsn, len(hosts.split(",")) * TIMEOUT, factories.get(case))


class _Own(c_connection):
    pass


@needs("kill")
@each(*INTERRUPTS)
def test_interrupt_of_a_server_that_is_silent_after_the_handshake(ctx: Context, case: str) -> None:
    """No query is cancelled, since none of the user's runs: the socket is closed at once."""
    descriptors = ctx.descriptors()
    with silent_after_handshake(ctx) as port:
        dsn = _dsn(ctx, HERE, str(port), sslmode="disable")

        interrupted(ctx, case, lambda: ctx.connect(dsn), 0.05)

    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "its socket is closed")


@each(HERE, "localhost")
@over_psycopg()
def test_connecting_is_green(ctx: Context, case: str) -> None:
    ctx.proxy().delay(0.05, way="both")

    with ctx.heartbeat():
        conn = ctx.connect(_dsn(ctx, case))

    ctx.proxy().flow()
    assert ask(conn) == 7


@each("any", "read-write", "primary", "prefer-standby")
def test_primary_is_what_is_wanted(ctx: Context, case: str) -> None:
    for hosts in (HERE, f"{HERE},{HERE}", NAME):
        backend = Resolver(ctx.backend, {NAME: [NOWHERE, HERE]})

        conn = ctx.connect(_dsn(ctx, hosts, target_session_attrs=case), backend=backend)

        assert ask(conn) == 7


@each("standby", "read-only")
def test_primary_is_not_what_is_wanted(ctx: Context, case: str) -> None:
    for hosts in (HERE, f"{HERE},{HERE}", NAME):
        backend = Resolver(ctx.backend, {NAME: [HERE]})

        with raises(OperationalError, words=case):
            ctx.connect(_dsn(ctx, hosts, target_session_attrs=case), backend=backend)


def test_server_that_is_read_only(ctx: Context) -> None:
    options = {"options": "-c default_transaction_read_only=on"}

    conn = ctx.connect(_dsn(ctx, f"{HERE},{HERE}", target_session_attrs="read-only", **options))

    assert ask(conn) == 7
    with raises(OperationalError, words="read-only"):
        ctx.connect(_dsn(ctx, f"{HERE},{HERE}", target_session_attrs="read-write", **options))


@each("hosts", "addresses")
@over_psycopg()
def test_load_is_balanced(ctx: Context, case: str) -> None:
    one, other = ctx.proxy(), ctx.proxy(tls=True)
    ports = f"{one.port},{other.port}"
    dsn = _dsn(ctx, f"{NAME},{NAME}", ports, load_balance_hosts="random")
    if case == "addresses":
        dsn = make_dsn(dsn, host="", hostaddr=f"{HERE},{HERE}")
    before = one.accepted(), other.accepted()

    for _ in range(CONNECTS):
        with closing(ctx.connect(dsn, backend=Resolver(ctx.backend, {NAME: [HERE]}))) as conn:
            assert ask(conn) == 7

    assert one.accepted() > before[0]
    assert other.accepted() > before[1]


def test_hosts_are_tried_in_order_unless_told_otherwise(ctx: Context) -> None:
    one, other = ctx.proxy(), ctx.proxy(tls=True)
    before = other.accepted()

    for _ in range(CONNECTS // 4):
        with closing(ctx.connect(_dsn(ctx, f"{HERE},{HERE}", f"{one.port},{other.port}"))):
            pass

    assert other.accepted() == before


@contextmanager
def _service(**options: object) -> Iterator[dict[str, str]]:
    """Write a service file and give the option that names the service in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "services.conf")
        lines = [f"{key}={value}" for key, value in options.items()]
        path.write_text("\n".join(("[greenpg_test]", *lines, "")))
        with patch.dict(os.environ, {"PGSERVICEFILE": str(path)}):
            yield {"service": "greenpg_test"}


@each("service=", "PGSERVICE", "both")
def test_service_file(ctx: Context, case: str) -> None:
    params = parse_dsn(_dsn(ctx, f"{NAME},{HERE}"))
    backend = Resolver(ctx.backend, {NAME: [HERE]})
    environ = {"PGSERVICE": {"PGSERVICE": "greenpg_test"}, "both": {"PGSERVICE": "another"}}
    with _service(**params, connect_timeout=3) as option, patch.dict(os.environ):
        os.environ.update(environ.get(case, {}))
        before = os.environ.get("PGSERVICE")

        given: dict[str, Any] = {} if case == "PGSERVICE" else option
        with closing(greenpg.connect("", backend=backend, **given)) as conn:
            assert backend.asked == [NAME]
            assert ask(conn) == 7

        assert os.environ.get("PGSERVICE") == before


@needs("hub")
@each("one host", "two hosts", "a name")
@over_psycopg()
def test_interrupt_at_any_wait_leaves_nothing(ctx: Context, case: str) -> None:
    hosts = {"one host": HERE, "two hosts": f"{HERE},{HERE}", "a name": "localhost"}
    dsn = _dsn(ctx, hosts[case])
    sessions, descriptors = ctx.server.sessions(ctx.name), ctx.descriptors()
    landed = 0

    for wait in range(1, 9):
        counting = CountingBackend(ctx.backend)
        interrupt = Interrupt("throw", wait, 0.0)
        run = Run(counting, ctx.description, None, [interrupt], lambda: None)
        run.perform(_connecting(ctx, dsn, counting))

        assert run.error is (interrupt.error if interrupt.landed else None), repr(run.error)
        ctx.wait_until(lambda: ctx.descriptors() == descriptors, "its socket is closed")
        ctx.wait_until(lambda: ctx.server.sessions(ctx.name) == sessions, "its session is over")
        landed += interrupt.landed

    assert landed  # what is over before it is waited for is no wait


def _connecting(ctx: Context, dsn: str, backend: Any) -> Iterator[None]:
    ctx.driver.connect(dsn, backend=backend).close()
    yield


@needs("kill")
@each(*INTERRUPTS)
@over_psycopg()
def test_interrupt_of_a_silent_host_comes_out(ctx: Context, case: str) -> None:
    descriptors = ctx.descriptors()
    with listening() as port:
        dsn = _dsn(ctx, f"{HERE},{HERE}", f"{port},{ctx.proxy().port}", connect_timeout="5")

        interrupted(ctx, case, lambda: ctx.connect(dsn), 0.05)

    ctx.wait_until(lambda: ctx.descriptors() == descriptors, "its socket is closed")
