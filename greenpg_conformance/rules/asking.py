"""A query that returns its own number, so that an answer meant for another task is noticed."""

from __future__ import annotations

from typing import Any


def asked(conn: Any, number: int, seconds: float = 0) -> int:
    """Return the number, which the server has had for some seconds."""
    with conn.cursor() as cur:
        cur.execute("select %s, pg_sleep(%s)", (number, seconds))
        return int(cur.fetchone()[0])
