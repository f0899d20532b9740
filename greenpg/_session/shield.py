"""Recovery from an interrupt: bounded, and shielded from the interrupts that follow."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .time_slice import TimeSlice

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .errors import ErrorClasses

_HARD: Final = (KeyboardInterrupt, SystemExit)
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC)


class Unrecovered(Exception):
    """The connection could not be brought to rest, or not in time."""


def is_shortage(exc: BaseException) -> bool:
    """Return True if a wait failed for lack of descriptors or the like: it was not interrupted."""
    return isinstance(exc, OSError) and exc.errno in _SHORTAGES


class Shield:
    """Bounds a recovery and keeps the interrupts that arrive meanwhile.

    `verdict` is what the operation will raise: an exit outranks a timeout, and both outrank the
    error of another task's close; of equals the last one counts, since an outer timeout expires
    after an inner one.
    """

    def __init__(
        self, backend: Backend, errors: ErrorClasses, first: BaseException | None, seconds: float
    ) -> None:
        self.backend = backend
        self.verdict = first
        self._exits = (*backend.exits, *_HARD)
        self._closed = errors.interface
        self._end = monotonic() + seconds
        self._time_slice = TimeSlice(backend)

    def take(
        self,
        steps: Iterable[tuple[int, int]],
        wait: Callable[[int, int, float], int],
        again: Callable[[], object] = lambda: None,
        pause: float = inf,
    ) -> None:
        """Take the steps of a protocol; `again` is called if nothing came for `pause` seconds."""
        for fd, events in steps:
            if not events:
                self.turn()
                continue
            while not self.wait(partial(wait, fd, events), pause):
                again()

    def turn(self) -> None:
        """Let other tasks run if they are due; Unrecovered at the end.

        A server that sends on and on never makes the recovery wait.
        """
        if monotonic() >= self._end:
            raise Unrecovered
        try:
            self._time_slice.pause_if_over()
        except BaseException as exc:
            self.note(exc)

    def wait(self, once: Callable[[float], Any], pause: float = inf) -> bool:
        """Call `once(seconds left)` until it returns something true; Unrecovered at the end.

        Return False if nothing came of it for `pause` seconds.
        """
        until = min(self._end, monotonic() + pause)
        while True:
            left = until - monotonic()
            if left <= 0 and until < self._end:
                return False
            if left <= 0:
                raise Unrecovered
            try:
                if once(left):
                    return True
            except BaseException as exc:
                if is_shortage(exc):  # it would fail again, without a pause
                    raise Unrecovered(exc) from None
                self.note(exc)

    def note(self, exc: BaseException) -> None:
        """Weigh another interrupt; Unrecovered if it is the second Ctrl-C."""
        first = self.verdict
        if first is None or self._rank(exc) >= self._rank(first):
            self.verdict = exc
        if isinstance(first, _HARD) and isinstance(exc, _HARD):
            raise Unrecovered from None  # the user has pressed Ctrl-C again

    def note_failure(self, failure: BaseException) -> None:
        """Weigh what has broken the recovery: Ctrl-C between two steps, or a full stack."""
        if self.verdict is None or not isinstance(failure, Exception):
            with suppress(Unrecovered):
                self.note(failure)

    def _rank(self, exc: BaseException) -> int:
        return 2 if isinstance(exc, self._exits) else int(not isinstance(exc, self._closed))


def graver(
    backend: Backend, errors: ErrorClasses, first: BaseException, later: BaseException
) -> BaseException:
    """Return which of two interrupts an operation raises that has met both."""
    shield = Shield(backend, errors, first, 0.0)
    with suppress(Unrecovered):
        shield.note(later)
    assert shield.verdict is not None
    return shield.verdict
