"""Runs functions in tasks and OS threads beside a test, and keeps what they returned or raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenpg.threads import backend as plain

from .machine import Patience

if TYPE_CHECKING:
    from greenpg.backend import Backend

__all__ = ["Job"]

SECONDS = 10.0
TICK = 0.002


class Job:
    """A function in a task; what it returned or raised is kept, exits included."""

    def __init__(self, backend: Backend, fn: Callable[..., Any], args: tuple[object, ...]) -> None:
        self.began = False
        self.ended = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.task: Any = None
        self._backend = backend
        self._fn = fn
        self._task = self._start(args)

    def _start(self, args: tuple[object, ...]) -> Any:
        return self._backend.spawn(self._run, *args)

    def _run(self, *args: object) -> None:
        self.began = True
        self.task = self._backend.current()
        try:
            self.value = self._fn(*args)
        except BaseException as error:  # a kill too is an outcome
            self.error = error
        finally:
            self.ended = True

    def join(self, seconds: float = SECONDS) -> Job:
        """Wait for the end, and fail the test if it does not come in time."""
        patience = Patience(seconds)
        while not self._task.join(patience.left()):
            assert patience.left(), f"{self._fn.__qualname__} did not end in {seconds:g} s"
        return self

    def result(self, seconds: float = SECONDS) -> Any:
        """Wait for the end; return or raise what the function did."""
        self.join(seconds)
        if self.error is not None:
            raise self.error
        return self.value

    def kill(self) -> None:
        """Kill the task, as the library does."""
        self._task.kill()


class NativeJob(Job):
    """A function in an OS thread of its own, which other tasks wait for without blocking."""

    def __init__(
        self, backend: Backend, fn: Callable[..., Any], args: Any, at_end: Callable[[], object]
    ) -> None:
        self._at_end = at_end
        self._gone = False
        super().__init__(backend, fn, args)

    def _start(self, args: tuple[object, ...]) -> Any:
        return plain.spawn(self._thread, *args)

    def _thread(self, *args: object) -> None:
        try:
            self._run(*args)
        finally:
            self._at_end()
            self._gone = True

    def join(self, seconds: float = SECONDS) -> Job:
        """Wait for the end, and fail the test if it does not come in time."""
        patience = Patience(seconds)
        while not self._gone:
            told = f"{self._fn.__qualname__}: the thread did not end in {seconds:g} s"
            assert patience.left(), told
            self._backend.sleep(TICK)
        return self

    def kill(self) -> None:
        """Do nothing: a thread ends by itself."""
