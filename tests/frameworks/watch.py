"""The state of a program's sessions, from the server's pg_stat_activity."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from greenpg_conformance.toolkit.machine import Patience
from greenpg_conformance.toolkit.observer import Observer

__all__ = ["Watch", "until"]

PATIENCE: Final = 15.0  # seconds


def until(true: Callable[[], Any], why: str, seconds: float = PATIENCE) -> Any:
    """Return the first true value of `true()`; fail after `seconds`."""
    patience = Patience(seconds)
    while not (value := true()):
        assert patience.left(), f"{why}: not in {seconds:g} s"
        time.sleep(0.01)
    return value


class Watch:
    """Counts the sessions whose application name begins with `name`."""

    def __init__(self, dsn: str, name: str) -> None:
        self._observer = Observer(dsn)
        self._name = name

    def sessions(self) -> dict[str, int]:
        """Return the number of sessions by application name."""
        return dict(self._count("true"))

    def busy(self) -> int:
        """Return the number of sessions that run a query."""
        return sum(count for _, count in self._count("state = 'active'"))

    def close(self) -> None:
        """Close the observer's connection."""
        self._observer.close()

    def _count(self, condition: str) -> list[tuple[Any, ...]]:
        return self._observer.ask(
            "select application_name, count(*) from pg_stat_activity"
            f" where starts_with(application_name, %s) and {condition} group by 1",
            self._name,
        )
