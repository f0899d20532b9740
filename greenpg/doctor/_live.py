"""Rows about whether a backend's tasks run while others wait for names and for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg2 import Error

from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._session.connect_plan import plan
from greenpg_conformance.toolkit.heartbeat import Heartbeat, calibrated
from greenpg_conformance.toolkit.jobs import Job

from .rows import Row

if TYPE_CHECKING:
    from greenpg.backend import Backend

SHORTEST: Final = 0.4  # seconds of a slow query
QUERIES: Final = 2
BUSY: Final = 1.0  # seconds; a higher limit would be meaningless
PATIENCE: Final = 10.0  # seconds for the slow queries
TRIES: Final = 3  # of a check whose stall exceeds the limit
BUSY_REMEDY: Final = "run it again when the machine is less busy"


class Live:
    """Checks during which a ticker runs; the ticker's longest stall is the verdict.

    A check that stalls the ticker is repeated: only one that does so every time is bad, so that
    noise from other programs is not.
    """

    def __init__(self, section: str, backend: Backend, remedy: str) -> None:
        self._section = section
        self._backend = backend
        self._remedy = remedy
        self._limit = calibrated(backend)
        backend.in_thread(int)  # a library may start all its threads at the first call

    def names(self, dsn: str) -> Iterator[Row]:
        """Yield a row for each host name that must be resolved."""
        for host in plan(dsn, CONNINFO).hosts:
            if host.needs_resolving:
                yield self._name(host.name, int(host.port or 5432))

    def _name(self, name: str, port: int) -> Row:
        title = "name resolution"
        try:
            measured = self._measured(lambda: self._backend.resolve(name, port))
        except OSError as err:
            remedy = "check the name and /etc/resolv.conf; hostaddr=... avoids the look-up"
            return Row(self._section, title, "bad", f"{name}: {err.strerror or err}", remedy)
        found = len(measured.value)
        addresses = "1 address" if found == 1 else f"{found} addresses"
        fact = f"{name}: {addresses} in {_ms(measured.seconds)}"
        return self._judged(title, fact, measured)

    def server(self, connect: Callable[[], Any]) -> Iterator[Row]:
        """Yield a row for two connects, and a row for two slow queries at once."""
        conns: list[Any] = []

        def reconnect() -> None:
            _close(conns)
            conns.extend(connect() for _ in range(QUERIES))

        try:
            measured = self._measured(reconnect)
            fact = f"{QUERIES} connections in {_ms(measured.seconds)}"
            yield self._judged("connecting", fact, measured)
            yield self._queries(conns)
        except (Error, AssertionError) as err:
            yield Row(self._section, "live check", "bad", str(err).strip(), self._remedy)
        finally:
            _close(conns)

    def _queries(self, conns: list[Any]) -> Row:
        seconds = max(SHORTEST, 2 * min(self._limit, BUSY))

        def at_once() -> None:
            jobs = [Job(self._backend, _sleep, (conn, seconds)) for conn in conns]
            for job in jobs:
                job.result(PATIENCE)

        measured = self._measured(at_once)
        fact = f"{QUERIES} of {_ms(seconds)} at once took {_ms(measured.seconds)}"
        return self._judged("slow queries", fact, measured)

    def _measured(self, act: Callable[[], Any]) -> _Measured:
        for _ in range(TRIES):
            pulse = Heartbeat(self._backend, self._limit)
            began = monotonic()
            with pulse.ticking():
                value = act()
            measured = _Measured(value, monotonic() - began, pulse.longest)
            if measured.stall <= self._limit:
                break
        return measured

    def _judged(self, title: str, done: str, measured: _Measured) -> Row:
        stall, limit = _ms(measured.stall), _ms(self._limit)
        fact = f"{done}; longest stall of a ticker {stall} (limit {limit})"
        if self._limit > BUSY:
            return Row(self._section, title, "note", fact, BUSY_REMEDY)
        if measured.stall > self._limit:
            return Row(self._section, title, "bad", fact, self._remedy)
        return Row(self._section, title, "good", fact)


class _Measured(NamedTuple):
    value: Any  # the action's result
    seconds: float
    stall: float  # the ticker's longest, in seconds


def _close(conns: list[Any]) -> None:
    while conns:
        conns.pop().close()


def _sleep(conn: Any, seconds: float) -> None:
    with closing(conn.cursor()) as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
