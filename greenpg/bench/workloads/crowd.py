"""10,000 green threads share 20 connections through a plain queue; 100 do the same work."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from greenpg.backend import as_backend
from greenpg.bench._drivers import Connection, connector
from greenpg.bench._hosts import HOSTS, crew
from greenpg.bench._meter import meter
from greenpg.bench._model import Contender, Job, Metric, Target, Workload
from greenpg.conformance._memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from greenpg.backend import Backend, Event
    from greenpg.bench._hosts import Crew

CONNECTIONS = 20
MANY, FEW = "10000", "100"
UNITS = 200_000
LOOPS = ("gevent", "eventlet")


class Line:
    """Green threads in a queue for connections, who go to its end again after each query.

    The queue is plain and its wake-ups cost the same however many wait; gevent's own looks
    through all of them at each, which takes it 100 us at 10,000.
    """

    def __init__(self, backend: Backend, tasks: Crew, count: int) -> None:
        self._event = backend.event
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[Event, list[Connection]]] = deque()
        self._left = UNITS
        self._over = self._event()
        for _ in range(count):
            tasks.start(self._work)
        while len(self._waiting) < count:
            tasks.sleep(0)

    def _work(self) -> None:
        try:
            while self._left:
                connection = self._get()
                try:
                    self._query(connection)
                finally:
                    self._put(connection)
        finally:  # the last query is made, or one has failed
            self._over.set()

    def _query(self, connection: Connection) -> None:
        if self._left:
            self._left -= 1
            cursor = connection.cursor()
            cursor.execute("select 1")
            cursor.fetchone()

    def _get(self) -> Connection:
        if self._free:
            return self._free.popleft()
        event, given = self._event(), list[Connection]()
        self._waiting.append((event, given))
        event.wait()
        return given.pop()

    def _put(self, connection: Connection) -> None:
        if self._waiting:
            event, given = self._waiting.popleft()
            given.append(connection)
            event.set()
        else:
            self._free.append(connection)

    def serve(self, connections: list[Connection]) -> None:
        """Give the connections out, and wait for the last query, but not for all threads' ends."""
        for connection in connections:
            self._put(connection)
        self._over.wait()


def _prepare(job: Job) -> Callable[[], Mapping[str, float]]:
    connect = connector(job.contender)
    connections = [connect(job.dsn) for _ in range(CONNECTIONS)]
    count, host = int(job.contender.variant), HOSTS[job.contender.host]
    backend, tasks = as_backend(host.backend), crew(host, count)

    memory: dict[str, float] = {}

    def measure() -> Mapping[str, float]:
        before = resident()
        line = Line(backend, tasks, count)
        # Later laps find memory that the first one has made the process ask for.
        memory.setdefault("memory", (resident() - before) / count / 1024)
        with meter() as reading:
            line.serve(connections)
        tasks.finish()
        return {
            "rate": UNITS / reading.wall,
            "cpu": reading.cpu / UNITS * 1e6,
            **memory,
        }

    return measure


def _target(host: str) -> Target:
    many, few = f"greenpg/{host} {MANY}", f"greenpg/{host} {FEW}"
    return Target(many, "rate", 0.9, few, at_least=True)


WORKLOAD = Workload(
    name="crowd",
    title=f"{MANY} and {FEW} green threads over {CONNECTIONS} connections in a queue",
    groups=tuple(
        tuple(Contender("greenpg", host, tasks) for tasks in (MANY, FEW)) for host in LOOPS
    ),
    metrics=(
        Metric("rate", "queries/s", "{:,.0f}"),
        Metric("cpu", "client CPU, us/query"),
        Metric("memory", "KiB per waiting thread"),
    ),
    targets=tuple(_target(host) for host in LOOPS),
    prepare=_prepare,
    units=UNITS,
    rounds=5,
    quick=1,
    pinned=True,
)
