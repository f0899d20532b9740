"""Other tasks that use the storm's connection at the same time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fixture import Fixture


class Holder:
    """A task that keeps the connection for a while."""

    error: BaseException | None = None

    def __init__(self, s: Fixture) -> None:
        self._seconds = s.rng.choice((0.001, 0.005, 0.03))
        self._fixture = s
        self._began = s.backend.event()
        self._task = s.backend.spawn(self._hold)
        self._began.wait()

    def _hold(self) -> None:
        with self._fixture.conn.exclusive():
            self._began.set()
            self._fixture.backend.sleep(self._seconds)

    def stop(self) -> None:
        """Wait for its end."""
        assert self._task.join(10), "the holder of the connection hangs"


class Companion:
    """A task that uses the connection too, and must not notice what happens to others."""

    def __init__(self, s: Fixture) -> None:
        self.error: BaseException | None = None
        self._fixture = s
        self._stopped = False
        self._task = s.backend.spawn(self._run, s.conn)

    def _run(self, conn: Any) -> None:
        try:
            while not self._stopped:
                self._fixture.echo(conn, nap=0)
                self._fixture.backend.pause()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        assert self._task.join(10), "a companion hangs"


class Sleeper:
    """A task whose query others cancel, or whose connection they close."""

    error: BaseException | None = None

    def __init__(self, s: Fixture, conn: Any) -> None:
        self._seconds = s.rng.choice((0.001, 0.005, 0.2))
        self._driver = s.driver
        self._began = s.backend.event()
        self._task = s.backend.spawn(self._run, conn)
        self._began.wait()

    def _run(self, conn: Any) -> None:
        try:
            with suppress(self._driver.cancelled), conn.cursor() as cur:
                self._began.set()
                cur.execute("select pg_sleep(%s)", (self._seconds,))
        except BaseException as error:
            self.error = None if self._driver.closed(error) else error

    def stop(self) -> None:
        """Wait for its end."""
        assert self._task.join(10), "a query that was to end hangs"
