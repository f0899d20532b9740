"""Interrupts of every kind, at the n-th wait of an operation or some time after its start."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from greenpg.errors import DeadlineExceeded
from greenpg_conformance.harness.drivers import PSYCOPG2, Driver

if TYPE_CHECKING:
    from random import Random

THROWN: Final = ("throw", "exit", "hard")
TIMED: Final = ("timeout", "deadline")
HARD: Final = "hard"
LESSER: Final = "came out instead of"
WAITS: Final = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8)  # 0: by time
SCALES: Final = (0.0005, 0.002, 0.01, 0.04)
HANG_SECONDS: Final = 20.0
SOON: Final = 0.002
LATE_SECONDS: Final = 0.3
SIGNAL: Final = signal.SIGUSR1


class Thrown(Exception):
    """The storm's own exception, beside the library's own exits and timeouts."""


@dataclass(slots=True)
class Interrupt:
    """One interrupt: by time if `wait` is 0. `landed`: it hit the running operation."""

    kind: str
    wait: int
    after: float
    error: BaseException | None = None
    landed: bool = False
    target: object = None

    def ends(self, elsewhere: bool) -> bool:
        """Return True if it is sure to end the operation, however long that would take."""
        kinds = (*THROWN, "kill", "timeout") if elsewhere else (*THROWN, "kill", "timeout", "close")
        return self.wait < 2 and self.kind in kinds

    def __str__(self) -> str:
        return f"{self.kind} at {self.moment}{', landed' if self.landed else ''}"

    @property
    def moment(self) -> str:
        """When it comes."""
        return f"wait {self.wait}" if self.wait else f"{self.after * 1000:.2f} ms"


def kinds(backend: Any, description: Any) -> tuple[str, ...]:
    """Return the kinds of interrupt that a backend can suffer."""
    found = ["throw", "throw", "cancel", "close", "deadline"]
    if "kill" in backend.capabilities:
        found += ["exit", "kill"]
    if description.timeout is not None:
        found += ["timeout", "timeout"]
    return tuple(found)


def draw(rng: Random, possible: tuple[str, ...]) -> list[Interrupt]:
    """Draw up to two interrupts; the second often meets what the first one has set off."""
    count = rng.choice((0, 1, 1, 1, 1, 2, 2, 2))
    if count < 2:
        return [_drawn(rng, rng.choice(possible)) for _ in range(count)]
    first, second = (_drawn(rng, rng.choice((*possible, HARD))) for _ in range(2))
    if second.kind not in TIMED and rng.random() < 0.6:
        second.wait = first.wait and first.wait + rng.choice((1, 1, 2, 3))
        second.after = first.after + rng.random() * SOON
    return [first, second]


def pairs(rng: Random, possible: tuple[str, ...]) -> list[Interrupt]:
    """Draw two or three interrupts that follow each other closely, which most often goes wrong."""
    found: list[Interrupt] = []
    wait = rng.choice(WAITS[4:])
    for kind in rng.choices((*possible, HARD, HARD), k=rng.choice((2, 2, 3))):
        after = rng.random() * rng.choice(SCALES)
        found.append(Interrupt(kind, 0 if kind in TIMED else wait, after))
        wait += rng.choice((0, 1, 1, 1, 2))
    return found


def _drawn(rng: Random, kind: str) -> Interrupt:
    wait = 0 if kind in TIMED else rng.choice(WAITS)
    return Interrupt(kind, wait, rng.random() * rng.choice(SCALES))


class _Counted:
    """A waiter or an event that reports each wait before it begins."""

    def __init__(self, inner: Any, begins: Callable[[], None]) -> None:
        self._inner, self._begins = inner, begins

    def wait(self, *args: Any) -> Any:
        self._begins()
        return self._inner.wait(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class CountingBackend:
    """A backend that counts the waits of the run under way."""

    def __init__(self, backend: Any) -> None:
        self._inner = backend
        self.run: Run | None = None

    def waiter(self) -> Any:
        """Return the backend's waiter, counted."""
        return _Counted(self._inner.waiter(), self._begins)

    def event(self) -> Any:
        """Return the backend's event, counted."""
        return _Counted(self._inner.event(), self._begins)

    def _begins(self) -> None:
        run = self.run
        if run is not None and run.running and self._inner.current() == run.who:
            run.wait_begins()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def was_cancelled(error: BaseException, driver: Driver) -> bool:
    """Return True for the error of `cancel()`: the transaction has failed, but is not doomed."""
    told = "due to user request" in str(error)  # a large object's error has no class of its own
    cancelled = isinstance(error, driver.cancelled) or told
    return cancelled and not isinstance(error, DeadlineExceeded)


def _between(code: CodeType, frame: FrameType | None) -> list[str]:
    """Return the names of the functions down from `code`; none if it does not run."""
    names: list[str] = []
    while frame is not None and frame.f_code is not code:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return [] if frame is None else [*names, code.co_name]


def _ends_a_block(frame: FrameType | None) -> bool:
    """Return True if it stands at the entry of an `__exit__`, before its first `try`."""
    if frame is None or frame.f_code.co_name != "__exit__":
        return False
    return frame.f_lineno == frame.f_code.co_firstlineno


class Run:
    """One operation that is interrupted, and its outcome."""

    def __init__(
        self,
        counting: CountingBackend,
        description: Any,
        conn: Any,
        interrupts: list[Interrupt],
        statement: Callable[[], object],
        driver: Driver = PSYCOPG2,
    ) -> None:
        self.interrupts = interrupts
        self._driver = driver
        self._statement = statement
        self.running = False
        self.who: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.waits = 0
        self.landed: list[Interrupt] = []
        self._backend: Any = counting._inner
        self._counting = counting
        self._description = description
        self._conn = conn
        self._done = self._backend.event()
        self._task: Any = None
        self._green = "hub" in self._backend.capabilities
        self._signals: deque[Interrupt] = deque()
        self._others: list[Any] = []
        self._fn: Callable[[], object]
        for interrupt in interrupts:
            interrupt.error = self._made(interrupt)

    def _made(self, interrupt: Interrupt) -> BaseException | None:
        if interrupt.kind == "throw":
            return Thrown(interrupt.moment)
        if interrupt.kind == "exit":
            return self._backend.exits[0]()  # type: ignore[no-any-return]
        return KeyboardInterrupt() if interrupt.kind == HARD else None

    def perform(self, steps: Any) -> Run:
        """Advance the operation's generator and interrupt it; on threads in this very task."""
        self._fn = lambda: next(steps, None)
        self._code = steps.gi_code
        self._counting.run = self
        if self._green:
            self._task = self._backend.spawn(self._call)
            assert self._task.join(HANG_SECONDS), "the operation hangs"
        else:
            self._call_under_signals()
        self._done.set()
        for task in self._others:
            assert task.join(HANG_SECONDS), "a task beside the operation hangs"
        self._counting.run = None
        return self

    def _call(self) -> None:
        self.who = self._backend.current()
        began = time.monotonic()
        try:
            with ExitStack() as stack:
                for interrupt in self.interrupts:
                    self._prepare(stack, interrupt)
                self.running = True
                try:
                    self._fn()
                finally:
                    self.running = False
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began

    def _call_under_signals(self) -> None:
        before = signal.signal(SIGNAL, self._signalled)
        gc.disable()  # in what it finalizes, such as a generator, the exception would be swallowed
        try:
            self._call()
        finally:
            gc.enable()
            self._done.set()
            for task in self._others:
                task.join()
            signal.signal(SIGNAL, before)

    def _prepare(self, stack: ExitStack, interrupt: Interrupt) -> None:
        if interrupt.kind == "timeout":
            interrupt.error = stack.enter_context(self._description.timeout(interrupt.after))
        elif interrupt.kind == "deadline":
            stack.enter_context(self._conn.deadline(interrupt.after))
        elif not interrupt.wait:
            self._beside(self._later, interrupt)

    def _beside(self, fn: Callable[..., None], *args: object) -> None:
        self._others.append(self._backend.spawn(fn, *args))

    def _later(self, interrupt: Interrupt) -> None:
        if not self._done.wait(interrupt.after) and self.running:
            self._interrupt(interrupt)

    def wait_begins(self) -> None:
        """Interrupt what is due at this wait."""
        self.waits += 1
        for interrupt in self.interrupts:
            if interrupt.wait == self.waits:
                self._interrupt(interrupt)

    def _interrupt(self, interrupt: Interrupt) -> None:
        if interrupt.kind in THROWN and self._green:
            self._description.in_hub(lambda: self._throw(interrupt))
        elif interrupt.kind in THROWN:
            self._by_signal(interrupt)
        elif interrupt.kind == "kill":
            self._task.kill()
        else:
            self._beside(self._meddle, interrupt)

    def _by_signal(self, interrupt: Interrupt) -> None:
        self._signals.append(interrupt)
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)

    def _throw(self, interrupt: Interrupt) -> None:
        if self.running:
            interrupt.landed = True
            self.landed.append(interrupt)
            self.who.throw(interrupt.error)

    def _signalled(self, _number: int, frame: FrameType | None) -> None:
        interrupt = self._signals.popleft()
        where = _between(self._code, frame)
        if "__del__" in where or _ends_a_block(frame):  # where it is swallowed, or forestalls it
            self._by_signal(interrupt)
        elif self.running and where:
            interrupt.landed = True
            self.landed.append(interrupt)
            assert interrupt.error is not None
            raise interrupt.error

    def _meddle(self, interrupt: Interrupt) -> None:
        interrupt.target = self._statement()
        try:
            getattr(self._conn, interrupt.kind)()
            interrupt.landed = True
        except BaseException as error:
            if self._driver.closed(error):
                interrupt.landed = self._conn.closed
            else:
                interrupt.error = error

    def explains(self, error: BaseException) -> bool:
        """Return True if one of the interrupts is the cause of an exception."""
        return any(self._explains(interrupt, error) for interrupt in self.interrupts)

    def _explains(self, interrupt: Interrupt, error: BaseException | None) -> bool:
        if interrupt.kind == "kill":
            ours = any(other.error is error for other in self.interrupts)
            return isinstance(error, self._backend.exits) and not ours
        if interrupt.kind == "close":
            return self._driver.closed(error)
        if interrupt.kind == "cancel":
            return error is not None and was_cancelled(error, self._driver)
        if interrupt.kind == "deadline":
            return isinstance(error, DeadlineExceeded)
        if isinstance(error, self._driver.cancelled) and error.__cause__ is not None:
            error = error.__cause__  # it came out of a file's read()
        return error is interrupt.error

    def complaint(self) -> str | None:
        """Return what is wrong with the way in which the operation ended, if anything."""
        error = self.error
        if error is not None and not self.explains(error):
            return f"it raised what nobody threw: {error!r}"
        if error is None and self.landed:
            return f"it swallowed {self.landed[0].error!r}"
        timeouts = (s for s in self.interrupts if s.kind == "timeout")
        late = [s for s in timeouts if s.after + LATE_SECONDS < self.seconds]
        if error is None and late:
            return f"it swallowed a timeout of {late[0].after} s"
        return self._wrong_one()

    def _wrong_one(self) -> str | None:
        """Complain if of interrupts that met a lesser one came out; signals may not have met."""
        if not self.landed or not self._green or self._by_another():
            return None
        weightiest = max(map(self._weight, self.landed))
        wanted = [s.error for s in self.landed if self._weight(s) == weightiest][-1]
        return None if self.error is wanted else f"{self.error!r} {LESSER} {wanted!r}"

    def _by_another(self) -> bool:
        """Return True if it was a kill or a timeout, whose moment of arrival is unknown."""
        vague = [s for s in self.interrupts if s.kind in ("kill", "timeout")]
        return any(self._explains(interrupt, self.error) for interrupt in vague)

    def _weight(self, interrupt: Interrupt) -> bool:
        return isinstance(interrupt.error, (*self._backend.exits, KeyboardInterrupt))
