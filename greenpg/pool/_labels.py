"""The application_name of a pool's sessions, as pg_stat_activity shows it."""

from __future__ import annotations

import os
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from greenpg.sync import Deadline, state_of

from ._managed import CHECK_SECONDS, in_autocommit

if TYPE_CHECKING:
    from collections.abc import Hashable

FIELDS: Final = {"pool", "pid", "task"}
SET: Final = "select set_config('application_name', %s, false)"


class Label:
    """A text with the fields {pool}, {pid} and {task}; with {task} it is set for each loan."""

    def __init__(self, template: str, pool: str) -> None:
        named = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        if named - FIELDS:
            raise ValueError(
                f"application_name={template!r}: give only {{pool}}, {{pid}}, {{task}}"
            )
        self.per_task = "task" in named
        self._template, self._pool = template, pool

    def text(self, task: str = "") -> str:
        """Return the name for a session, or for its loan to a task."""
        return self._template.format(pool=self._pool, pid=os.getpid(), task=task)

    def set_on(self, conn: Any) -> None:
        """Give a lent connection the name of the running task, in one round trip."""
        text = self.text(_name(state_of(conn).current()))
        with Deadline(conn, CHECK_SECONDS), in_autocommit(conn), conn.cursor() as cur:
            cur.execute(SET, (text,))


def _name(task: Hashable) -> str:
    """Return the name of a task of libraries that name them, else a number."""
    return str(getattr(task, "name", None) or getattr(task, "ident", None) or f"{id(task):x}")
