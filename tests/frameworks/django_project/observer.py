"""The server's view of the project's sessions, on a separate connection without Django."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

import greenpg
from greenpg.backend import current

PATIENCE: Final = 10.0  # seconds
STATES: Final = """
    select state, query, coalesce(wait_event, '') from pg_stat_activity
    where application_name = %s and datname <> current_database()
"""


class Observer:
    """Reads the sessions of one application from pg_stat_activity."""

    def __init__(self, dsn: str, application: str) -> None:
        self._application = application
        self._conn = greenpg.connect(dsn, application_name="observer")
        self._conn.autocommit = True

    def ask(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        with self._conn.cursor() as cur:
            cur.execute(statement, args)
            return list(cur.fetchall()) if cur.description else []

    def sessions(self, *states: str, query: str = "") -> int:
        """Return the number of sessions in one of the states (default: any) with such a query."""
        rows = self.ask(STATES, self._application)
        return sum(
            1 for state, text, _ in rows if (not states or state in states) and query in text
        )

    def busy(self) -> int:
        """Return the number of sessions that run a statement or are in a transaction."""
        return len([row for row in self.ask(STATES, self._application) if row[0] != "idle"])

    def until(self, holds: Any, what: str) -> None:
        """Wait until `holds()`; fail after 10 seconds."""
        deadline = monotonic() + PATIENCE
        while not holds():
            if monotonic() > deadline:
                rows = self.ask(STATES, self._application)
                raise AssertionError(f"not so in {PATIENCE:g} s: {what}; sessions: {rows}")
            current().sleep(0.01)

    def until_running(self, count: int, query: str) -> None:
        """Wait until `count` sessions run such a query."""
        self.until(lambda: self.sessions("active", query=query) == count, f"{count} run {query}")

    def until_quiet(self) -> None:
        """Wait until no session runs a statement or is in a transaction."""
        self.until(lambda: self.busy() == 0, "all idle")

    def end_sessions(self) -> None:
        """Terminate all sessions of the project and wait until they are gone."""
        self.ask(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            self._application,
        )
        self.until(lambda: self.sessions() == 0, "the sessions are gone")

    def close(self) -> None:
        self._conn.close()
