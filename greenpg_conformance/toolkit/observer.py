"""Queries the server without greenpg's connections and without any event loop."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ

from greenpg.backend import READ, WRITE
from greenpg.threads import backend as plain

__all__ = ["Observer"]

ANSWER_SECONDS: Final = 10.0
SESSIONS: Final = """
    select pid, format('%%s, %%s: %%s', backend_type, state, left(query, 80))
    from pg_stat_activity where application_name = %s and pid <> pg_backend_pid()
"""


class Observer:
    """A stock psycopg2 connection that blocks, whether or not the process is patched."""

    def __init__(self, dsn: str) -> None:
        connect: Any = psycopg2._psycopg._connect  # below every hook
        self._conn = connect(dsn, None, True)
        self._settle()

    def ask(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, if it has any."""
        with self._conn.cursor() as cur:
            cur.execute(query, args)
            self._settle()
            rows: list[tuple[Any, ...]] = cur.fetchall() if cur.description else []
        return rows

    def sessions(self, name: str) -> dict[Hashable, str]:
        """Return the sessions of an application, this one apart, and what they do."""
        return {pid: f"session {pid} ({doing})" for pid, doing in self.ask(SESSIONS, name)}

    def is_busy(self, pid: int) -> bool:
        """Return True if a session runs a statement now."""
        return self._has("state = 'active'", pid)

    def exists(self, pid: int) -> bool:
        """Return True if a session exists."""
        return self._has("true", pid)

    def terminate(self, pid: int) -> None:
        """End a session, as a server that shuts down does."""
        self.ask("select pg_terminate_backend(%s)", pid)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def _has(self, condition: str, pid: int) -> bool:
        query = f"select count(*) from pg_stat_activity where pid = %s and {condition}"
        return self.ask(query, pid) == [(1,)]

    def _settle(self) -> None:
        waiter = plain.waiter()
        try:
            while (want := self._conn.poll()) != POLL_OK:
                events = READ if want == POLL_READ else WRITE
                if not waiter.wait(self._conn.fileno(), events, ANSWER_SECONDS):
                    raise psycopg2.OperationalError(f"no answer in {ANSWER_SECONDS:g} s")
        finally:
            waiter.close()
