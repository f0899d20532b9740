"""The listener's connection: it detects a lost server, and other threads can wake it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from greenpg._session.input_wait import InputWait
from greenpg.backend import READ
from greenpg.sync import Deadline, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenpg._session.connect_plan import Conninfo
    from greenpg._session.errors import ErrorClasses
    from greenpg.backend import Backend

CANCEL_TIMEOUT: Final = 1.0  # seconds
LOOK: Final = 1.0  # seconds; an OS thread checks for work as often: a wake-up may be missed


class Driver(Protocol):
    """What a listener needs of a driver beyond its connections' common methods."""

    errors: ErrorClasses
    conninfo: Conninfo

    def make_conninfo(self, conninfo: str, **params: Any) -> str:
        """Return a connection string with more parameters; raises the driver's error."""

    def connect(self, dsn: str, backend: Backend, notes: deque[Any]) -> Any:
        """Return a connection under autocommit, which appends notifications to `notes`."""

    def statement(self, conn: Any, verb: str, names: Iterable[str]) -> str:
        """Return the LISTEN or UNLISTEN statements as one string."""

    def gather(self, conn: Any) -> None:
        """Read the notifications that have arrived."""


class ListenerConnection:
    """One connection of the listener; each query may take `patience` seconds."""

    def __init__(self, driver: Driver, dsn: str, backend: Backend, patience: float) -> None:
        self.notes: deque[Any] = deque()
        self._driver = driver
        self._listening: set[str] = set()
        self._perhaps: set[str] = set()  # also channels of an interrupted LISTEN or UNLISTEN
        self._patience = patience
        self._look = inf if "hub" in backend.capabilities else LOOK
        self._heard = monotonic()
        self._conn = driver.connect(dsn, backend, self.notes)
        self._input = InputWait(self._conn)
        state_of(self._conn).cancel_timeout = CANCEL_TIMEOUT

    def listen_to(self, wanted: set[str]) -> None:
        """LISTEN to new channels and UNLISTEN from those no longer wanted."""
        new, gone = wanted - self._listening, self._perhaps - wanted
        if new or gone:
            self._listening -= gone
            self._perhaps |= new
            statement = partial(self._driver.statement, self._conn)
            both = statement("LISTEN", new), statement("UNLISTEN", gone)
            self._ask("; ".join(filter(None, both)))
            self._listening, self._perhaps = set(wanted), set(wanted)

    def gather(self) -> None:
        """Read the notifications that have arrived into `notes`."""
        self._driver.gather(self._conn)

    def sleep(self, heartbeat: float, has_work: Callable[[], object]) -> None:
        """Wait for the server, `wake` or `has_work`; query a server silent for `heartbeat` s."""
        longest = min(self._look, heartbeat)
        if self._input.wait(None if longest == inf else longest, has_work, READ):
            self._heard = monotonic()
        elif monotonic() - self._heard >= heartbeat:
            self._ask("SELECT 1")

    def wake(self) -> None:
        """End the sleep, from any thread."""
        self._input.wake()

    def _ask(self, sql: str) -> None:
        with Deadline(self._conn, self._patience):
            self._conn.cursor().execute(sql)
        self._heard = monotonic()

    def close(self) -> None:
        """Close the connection."""
        with suppress(self._driver.errors.error):
            self._conn.close()
