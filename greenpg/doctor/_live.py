"""Rows about what a backend's tasks can do while others wait for names and for the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import Error

from greenpg._hosts import plan
from greenpg.conformance._heartbeat import Heartbeat, calibrated
from greenpg.conformance._jobs import Job

from ._row import Row

if TYPE_CHECKING:
    from greenpg.backend import Backend

__all__ = ["Live"]

SHORTEST: Final = 0.4  # seconds of a slow query
QUERIES: Final = 2
BUSY: Final = 1.0  # a limit above this many seconds tells nothing
PATIENCE: Final = 10.0
BUSY_REMEDY: Final = "run it again when the machine has less to do"


class Live:
    """Checks with a ticker beside them, whose longest stall is the verdict."""

    def __init__(self, section: str, backend: Backend, remedy: str) -> None:
        self._section = section
        self._backend = backend
        self._remedy = remedy
        self._limit = calibrated(backend)

    def names(self, dsn: str) -> Iterator[Row]:
        """Yield a row for each host name that has to be looked up."""
        for host in plan(dsn).hosts:
            if host.needs_resolving:
                yield self._name(host.name, int(host.port or 5432))

    def _name(self, name: str, port: int) -> Row:
        title = "name resolution"
        pulse = Heartbeat(self._backend, self._limit)
        began = monotonic()
        try:
            with pulse.ticking():
                rows = self._backend.resolve(name, port)
        except OSError as err:
            remedy = "check the name and /etc/resolv.conf; hostaddr=... spares the look-up"
            return Row(self._section, title, "bad", f"{name}: {err.strerror or err}", remedy)
        told = f"{name}: {_count(len(rows), 'address')} in {_ms(monotonic() - began)}"
        return self._judged(title, told, pulse)

    def server(self, connect: Callable[[], Any]) -> Iterator[Row]:
        """Connect twice and run two slow queries at once, a row each."""
        pulse = Heartbeat(self._backend, self._limit)
        began = monotonic()
        conns = []
        try:
            with pulse.ticking():
                conns = [connect() for _ in range(QUERIES)]
            told = f"{_count(QUERIES, 'connection')} in {_ms(monotonic() - began)}"
            yield self._judged("connecting", told, pulse)
            yield self._queries(conns)
        except (Error, AssertionError) as err:
            yield Row(self._section, "live check", "bad", str(err).strip(), self._remedy)
        finally:
            for conn in conns:
                conn.close()

    def _queries(self, conns: list[Any]) -> Row:
        seconds = max(SHORTEST, 2 * min(self._limit, BUSY))
        pulse = Heartbeat(self._backend, self._limit)
        began = monotonic()
        with pulse.ticking():
            jobs = [Job(self._backend, _sleep, (conn, seconds)) for conn in conns]
            for job in jobs:
                job.result(PATIENCE)
        took = monotonic() - began
        told = f"{QUERIES} of {_ms(seconds)} at once took {_ms(took)}"
        return self._judged("slow queries", told, pulse)

    def _judged(self, title: str, told: str, pulse: Heartbeat) -> Row:
        fact = f"{told}; longest stall of a ticker {_ms(pulse.longest)} (limit {_ms(self._limit)})"
        if self._limit > BUSY:
            return Row(self._section, title, "note", fact, BUSY_REMEDY)
        if pulse.longest > self._limit:
            return Row(self._section, title, "bad", fact, self._remedy)
        return Row(self._section, title, "good", fact)


def _sleep(conn: Any, seconds: float) -> None:
    with closing(conn.cursor()) as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


def _count(number: int, thing: str) -> str:
    plural = "es" if thing.endswith("s") else "s"
    return f"{number} {thing}{'' if number == 1 else plural}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
