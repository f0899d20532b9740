"""OS threads for calls that block, which the hubs of all threads share.

eventlet's tpool wakes tasks of one hub alone: of the thread that was first to use it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from greenpg.backend import Event, after_fork
from greenpg.threads import pristine

LIMIT: Final = max(1, int(os.environ.get("EVENTLET_THREADPOOL_SIZE", "20")))  # tpool's variable
_start: Final = pristine("_thread").start_new_thread


class Call:
    """One call, in the queue or in a thread; `done` is set at its end."""

    __slots__ = ("_args", "_error", "_fn", "_value", "done")

    def __init__(self, done: Event, fn: Callable[..., Any], args: tuple[object, ...]) -> None:
        self.done = done
        self._fn = fn
        self._args = args
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._fn(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def outcome(self) -> Any:
        """Return or raise what the function did."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._value


_calls: Final[deque[Call]] = deque()
_free: Final = deque(range(LIMIT))  # a number for each thread that may be started


def run(done: Event, fn: Callable[..., Any], args: tuple[object, ...]) -> Any:
    """Call a function in a thread, and wait for `done`; calls beyond LIMIT queue up.

    The call continues if its task is interrupted.
    """
    call = Call(done, fn, args)
    _calls.append(call)
    if (number := _number()) is not None:
        try:
            _start(_work, (number,))
        except BaseException:
            _free.append(number)
            with suppress(ValueError):  # another thread has begun with it
                _calls.remove(call)
            raise
    done.wait()
    return call.outcome()


def _work(number: int | None) -> None:
    """Run calls until none is left: one for which no number was free is seen by the last thread."""
    while number is not None:
        with suppress(IndexError):
            while True:
                _calls.popleft().run()
        _free.append(number)
        number = _number() if _calls else None


def _number() -> int | None:
    try:
        return _free.popleft()
    except IndexError:
        return None


def _forget() -> None:
    """Begin again in a forked child: the threads are not in it."""
    _calls.clear()
    _free.clear()
    _free.extend(range(LIMIT))


after_fork(_forget)
