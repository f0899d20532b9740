"""The listener's connection: it detects a lost server, and other threads can wake it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from psycopg2 import Error

from greenpg._connecting.connect import connect_untraced
from greenpg._notifications import statement
from greenpg._psycopg2.input_wait import InputWait
from greenpg.backend import READ
from greenpg.sync import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import Notify

    from greenpg.backend import Backend

CANCEL_TIMEOUT: Final = 1.0  # seconds
LOOK: Final = 1.0  # seconds; an OS thread checks for work as often: a wake-up may be missed


class ListenerConnection:
    """One connection of the listener; each query may take `patience` seconds."""

    def __init__(self, dsn: str, backend: Backend, patience: float) -> None:
        self.notes: deque[Notify] = deque()
        self._listening: set[str] = set()
        self._perhaps: set[str] = set()  # also channels of an interrupted LISTEN or UNLISTEN
        self._patience = patience
        self._look = inf if "hub" in backend.capabilities else LOOK
        self._heard = monotonic()
        self._conn = connect_untraced(dsn, backend=backend)
        self._input = InputWait(self._conn)
        self._conn._greenpg_state.cancel_timeout = CANCEL_TIMEOUT
        self._conn.autocommit = True
        self._conn.notifies = self.notes

    def listen_to(self, wanted: set[str]) -> None:
        """LISTEN to new channels and UNLISTEN from those no longer wanted."""
        new, gone = wanted - self._listening, self._perhaps - wanted
        if new or gone:
            self._listening -= gone
            self._perhaps |= new
            both = statement(self._conn, "LISTEN", new), statement(self._conn, "UNLISTEN", gone)
            self._ask("; ".join(filter(None, both)))
            self._listening, self._perhaps = set(wanted), set(wanted)

    def gather(self) -> None:
        """Read the notifications that have arrived into `notes`."""
        self._conn.poll()

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
        with suppress(Error):
            self._conn.close()
