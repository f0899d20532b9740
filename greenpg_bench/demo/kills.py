"""The demo's second act: tasks are killed in the midst of their queries, and what that leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from rich.console import Group, RenderableType
from rich.text import Text

from .facts import table_of, troubles
from .job import APPLICATION, TICK

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .record import Record

SECONDS: Final = 10.0  # of each query, which nobody waits for
QUERIES: Final = """
    select {} from pg_stat_activity
    where application_name = %s and state = 'active' and pid <> pg_backend_pid()
"""
DONE: Final = "count(*)", "count(pg_terminate_backend(pid))"


def kill_all(
    backend: Backend,
    observer: Any,
    connections: Sequence[Any],
    query: Callable[[int, float], None],
    tasks: int,
) -> tuple[int, int]:
    """Kill all tasks once each connection runs a query of theirs.

    Return how many connections can be used then, and how many queries the server still runs,
    which are ended afterwards.
    """
    count, end = (QUERIES.format(what) for what in DONE)
    crew = [backend.spawn(query, task, SECONDS) for task in range(tasks)]
    while _answer(observer, count) < len(connections):
        backend.sleep(TICK)
    for task in crew:
        task.kill()
    for task in crew:
        task.join()
    usable = sum(map(_is_usable, connections))
    running = _answer(observer, count)
    _answer(observer, end)
    return usable, running


def _answer(conn: Any, query: str) -> Any:
    with conn.cursor() as cur:
        cur.execute(query, (APPLICATION,))
        return cur.fetchone()[0]


def _is_usable(conn: Any) -> bool:
    try:
        with conn.cursor() as cur:
            cur.execute("select 1")
    except psycopg2.Error:
        return False
    return True


def after_kills(records: Sequence[Record]) -> RenderableType:
    """Return a table of what the kills have left; the reasons of failed runs are below it."""
    table = table_of("connections left", "queries that run on in the server", no_wrap=False)
    for record in records:
        if record.usable is not None:
            usable = f"{record.usable} of {record.job.connections}"
            table.add_row(record.job.name, usable, str(record.running))
    tasks = records[0].job.tasks if records else 0
    title = Text(f"{tasks} tasks killed in the midst of their queries", "bold")
    return Group(title, table, *troubles(records))
