"""Connection strings mean what they mean to libpq: what it tries itself is compared."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

import psycopg2
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from psycopg2 import extensions as ext

import greenpg
from greenpg._psycopg2.psycopg2_c import c_connect

CLEARTEXT = struct.pack("!cii", b"R", 8, 3)
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "password": "PGPASSWORD",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "service": "PGSERVICE",
}


class Doorkeeper:
    """Notes who knocks at three ports and their Unix sockets, and lets nobody in."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.seen: list[object] = []
        self._selector = selectors.DefaultSelector()
        self._stack = ExitStack()
        self._stop, self._stopped = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self.ports = [self._listen() for _ in range(3)]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _listen(self) -> str:
        tcp, local = socket.socket(), socket.socket(socket.AF_UNIX)
        tcp.bind(("127.0.0.1", 0))
        port = str(tcp.getsockname()[1])
        local.bind(f"{self.directory}/.s.PGSQL.{port}")
        for listener in (tcp, local):
            listener.listen()
            self._stack.enter_context(listener)
            self._selector.register(listener, selectors.EVENT_READ, (listener.family.name, port))
        return port

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                client, _ = key.fileobj.accept()  # type: ignore[union-attr]
                with client, suppress(OSError, struct.error):  # it has left
                    self._refuse(client, key.data)

    def _refuse(self, client: socket.socket, where: object) -> None:
        with client.makefile("rb") as file:
            (size,) = struct.unpack("!i", file.read(4))
            words = file.read(size - 4)[4:].split(b"\0")
            startup = dict(zip(words[::2], words[1::2], strict=False))
            self.seen.append((where, startup))
            if startup[b"user"] == b"asked":
                client.sendall(CLEARTEXT)
            if startup[b"user"] == b"asked" and (head := file.read(5)):
                self.seen.append(file.read(struct.unpack("!i", head[1:])[0] - 4))
        code = b"28P01" if startup[b"user"] == b"final" else b"57P03"
        fields = b"SFATAL\0VFATAL\0C%b\0Mnot today\0Fdoor.c\0L1\0Rdoor\0\0" % code
        client.sendall(struct.pack("!ci", b"E", len(fields) + 4) + fields)

    def close(self) -> None:
        self._stop.send(b"!")
        self._thread.join()
        for end in (self._stack, self._selector, self._stop, self._stopped):
            end.close()


@pytest.fixture(scope="module")
def door() -> Iterator[Doorkeeper]:
    with tempfile.TemporaryDirectory() as directory:
        made = Doorkeeper(directory)
        yield made
        made.close()


def lists(*entries: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(entries), min_size=1, max_size=3).map(",".join)


# {} is one of the door's ports, {directory} that of its Unix sockets
PORTS = ("{0}", "{1}", "{2}", " {0} ", "{0}", "{1}", "", "1", "0", "70000", "x")
VALUES = {
    "host": lists("127.0.0.1", "localhost", "127.1", "{directory}", "/nowhere") | st.just(""),
    "hostaddr": lists("127.0.0.1", "") | st.just(""),
    "port": st.sampled_from(PORTS) | lists(*PORTS),
    "connect_timeout": st.sampled_from(
        ["0", "-1", "7", " 7 ", "+7", "8", "9", "", "7x", "abc", "99999999999"]
    ),
    "target_session_attrs": st.sampled_from(
        ["any", "read-write", "prefer-standby", "standby", "primary", "", "odd"]
    ),
    "load_balance_hosts": st.sampled_from(["disable"] * 5 + ["", "odd"]),
    "password": st.sampled_from(["", "secret", "other"]),
    "options": st.sampled_from(["", "-c work_mem=1MB", "-c work_mem=2MB"]),
    "application_name": st.sampled_from(["", "this", "that"]),
}


def merged(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    return {**first, **second}


def some(*names: str) -> st.SearchStrategy[dict[str, str]]:
    """Return values for a few of the parameters, more often for those that name hosts."""
    chosen = {name: VALUES[name] for name in names or VALUES}
    return st.fixed_dictionaries({}, optional=chosen)


HOSTS = ("host", "hostaddr", "port")
ENTRIES = st.builds(merged, some(*HOSTS), st.just({}) | some())
SERVICES = st.sampled_from([{}, {"service": "one"}, {"service": "two"}])
PARAMETERS = st.builds(merged, ENTRIES, SERVICES)


@pytest.mark.timeout(300)  # many examples, on a machine that may be busy
@pytest.mark.parametrize("user", ["guest", "asked", "final"])
@settings(max_examples=300)
@example({"host": "", "port": "{0}"}, {"host": "localhost"}, {}, {})
@example({"host": "localhost", "port": "{0},"}, {"password": "other"}, {}, {})
@example({"host": "localhost,localhost", "password": ""}, {"password": "other"}, {}, {})
@example({"host": "localhost", "options": ""}, {"options": "-c work_mem=1MB"}, {}, {})
@example({"service": "one"}, {"port": "{0}", "service": "two"}, {"host": "localhost"}, {})
@given(PARAMETERS, PARAMETERS, ENTRIES, ENTRIES)
def test_hosts_are_tried_as_libpq_tries_them(door, user, given, environment, one, two):
    given, environment, one, two = (
        {key: value.format(*door.ports, directory=door.directory) for key, value in each.items()}
        for each in ({"port": "{0}", **given}, environment, one, two)
    )
    dsn = ext.make_dsn(user=user, dbname="x", sslmode="disable", gssencmode="disable", **given)

    with environ(environment, {"one": one, "two": two}, door.directory):
        expected = refusal(door, lambda: blocking(dsn))
        found = refusal(door, lambda: greenpg.connect(dsn, backend="threads"))

    if "connect_timeout" in found[0]:  # libpq begins with the first host before it finds out
        event("timeout refused")
        assert expected[0]
    else:
        event(f"{len(expected[1])} servers")
        assert found == expected


def environ(variables: dict[str, str], services: dict[str, dict[str, str]], directory: str):
    """Set libpq's environment, with a service file, for the length of a block."""
    file = Path(directory, "services")
    lines = []
    for name, entry in services.items():
        lines += [f"[{name}]", *(f"{key}={value}" for key, value in entry.items())]
    file.write_text("\n".join(lines) + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    files = {"PGSERVICEFILE": str(file), "PGPASSFILE": "/nowhere", "PGPORT": "1"}
    named = {VARIABLES[key]: value for key, value in variables.items()}
    return patch.dict(os.environ, {**kept, **files, **named}, clear=True)


def blocking(dsn: str):
    callback = ext.get_wait_callback()
    ext.set_wait_callback(None)
    try:
        return c_connect(dsn, None, False)
    finally:
        ext.set_wait_callback(callback)


def refusal(door: Doorkeeper, connect) -> tuple[str, list[object]]:
    """Return the text of the error, and what the door's servers have seen."""
    door.seen.clear()
    with pytest.raises(psycopg2.OperationalError) as caught:
        connect().close()
    return str(caught.value), list(door.seen)
