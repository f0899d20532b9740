"""What is observed from outside while programs run: their sessions, and promotions."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg2

from ._processes import ClusterError

if TYPE_CHECKING:
    from ._nodes import Node

EACH: Final = 0.05  # seconds
PROMOTED: Final = 90.0  # seconds until there must be a new primary
OURS: Final = "greenpg cluster"


class Sessions:
    """Counts each program's sessions on both nodes, or as PgBouncer's clients.

    One counts if it is there in two samples: one that is being closed overlaps with its successor.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.most: Counter[str] = Counter()
        self._sources = [make(node) for node in nodes for make in (Servers, Clients)]
        self._over = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before: Counter[str] = Counter()
        try:
            while not self._over.wait(EACH):
                now: Counter[str] = sum((one.sample() for one in self._sources), Counter())
                self.most |= before & now
                before = now
        except Exception as error:
            self._failure = error

    def stop(self) -> None:
        """Stop; raises what has made sampling impossible."""
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


class Servers:
    """A server's sessions by application, without those that PgBouncer has made."""

    query: ClassVar = "select application_name from pg_stat_activity where datname = 'postgres'"
    kind: ClassVar = "-direct"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._cursor: Any = None

    def dsn(self) -> str:
        return self._node.dsn(application_name=OURS)

    def sample(self) -> Counter[str]:
        """Return the present counts; none if the server is down."""
        try:
            if self._cursor is None:
                conn = psycopg2.connect(self.dsn())
                conn.autocommit = True
                self._cursor = conn.cursor()
            self._cursor.execute(self.query)
        except psycopg2.Error:
            self._cursor = None
            return Counter()
        column = [one.name for one in self._cursor.description].index("application_name")
        names = [row[column] or "" for row in self._cursor.fetchall()]
        return Counter(name for name in names if name.endswith(self.kind))


class Clients(Servers):
    """PgBouncer's clients by application."""

    query: ClassVar = "show clients"
    kind: ClassVar = "-pgbouncer"

    def dsn(self) -> str:
        return self._node.dsn(port=self._node.bouncer, dbname="pgbouncer", application_name=OURS)


@contextmanager
def connected(dsn: str) -> Iterator[Any]:
    """Yield a cursor under autocommit."""
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        yield conn.cursor()


def promotion(standby: Node, act: Callable[[], object]) -> tuple[float, float]:
    """Do what makes a standby the primary; return when that was, and when it accepted writes."""
    with connected(standby.dsn(application_name=OURS)) as cur:
        began = time.monotonic()
        act()
        while time.monotonic() < began + PROMOTED:
            cur.execute("select pg_is_in_recovery()")
            if cur.fetchone() == (False,):
                return began, time.monotonic()
            time.sleep(0.005)
    raise ClusterError(f"node {standby.name} was not promoted within {PROMOTED:g} s")
