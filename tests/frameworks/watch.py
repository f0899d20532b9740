"""What a program's server sessions are doing, as the server tells it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from greenpg_conformance.toolkit.observer import Observer

__all__ = ["Watch", "until"]

PATIENCE: Final = 15.0


def until(true: Callable[[], Any], why: str, seconds: float = PATIENCE) -> Any:
    """Return the first true value of `true()`."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"{why}: not in {seconds:g} s"
        time.sleep(0.01)
    return value


class Watch:
    """Counts the sessions whose application name begins with `name`."""

    def __init__(self, dsn: str, name: str) -> None:
        self._observer = Observer(dsn)
        self._name = name

    def sessions(self) -> dict[str, int]:
        """Return how many sessions there are by application name."""
        return dict(self._count("true"))

    def busy(self) -> int:
        """Return how many sessions run a query."""
        return sum(count for _, count in self._count("state = 'active'"))

    def close(self) -> None:
        """Close the connection on which it looks."""
        self._observer.close()

    def _count(self, condition: str) -> list[tuple[Any, ...]]:
        return self._observer.ask(
            "select application_name, count(*) from pg_stat_activity"
            f" where starts_with(application_name, %s) and {condition} group by 1",
            self._name,
        )
