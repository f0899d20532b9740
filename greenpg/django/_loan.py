"""Connections in the hands of tasks, given back at the latest when the task has ended."""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Loan", "end_forgotten"]

log: Final = logging.getLogger("greenpg.django")


class _Ties(threading.local):
    """What ends with a task: of this one, a tie for each wrapper that has a connection.

    Tasks share local storage where nobody has monkey-patched.
    """

    def __init__(self) -> None:
        self.of: weakref.WeakKeyDictionary[Any, _Tie] = weakref.WeakKeyDictionary()
        self.announced: set[int] = set()  # hashes of tasks, so that these can be freed

    def announce_end(self, task: object) -> None:
        """Have the task's library cut the task's ties, where it tells of a task's end.

        Local storage alone would do so later: with the task, which others may keep.
        """
        link = getattr(task, "rawlink", None) or getattr(task, "link", None)
        number = hash(task)
        if link is not None and number not in self.announced:
            self.announced.add(number)
            of, announced = self.of, self.announced
            link(lambda _: _cut(of, announced, number))


def _cut(ties: weakref.WeakKeyDictionary[Any, _Tie], announced: set[int], number: int) -> None:
    announced.discard(number)  # a later task may have the same hash
    for wrapper, tie in list(ties.items()):
        if tie.task == number:
            ties.pop(wrapper, None)


_ties: Final = _Ties()


def end_forgotten() -> None:
    """End the loan of the last task, if it has ended.

    eventlet keeps the local storage of whoever used it last until another task uses it.
    """
    _ties.of  # noqa: B018  the use that is meant


class Loan:
    """A connection that a wrapper has, and the way to give it back.

    A killed task sends no signal `request_finished`, and its wrapper is garbage in a cycle.
    """

    __slots__ = ("__weakref__", "_give_back", "_process", "connection")

    def __init__(
        self, wrapper: Any, connection: Any, give_back: Callable[[Any], object], task: object
    ) -> None:
        self.connection = connection
        self._give_back = give_back
        self._process = os.getpid()
        _ties.announce_end(task)
        _ties.of[wrapper] = _Tie(wrapper, self, hash(task))

    def end(self) -> None:
        """Give the connection back; a second time nothing is done."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._process == os.getpid():
            self._give_back(connection)
        else:
            connection.close()  # the parent process has lent it, and keeps its session


class _Tie:
    """Ends a loan together with the task or the wrapper that has it."""

    __slots__ = ("_loan", "_wrapper", "task")

    def __init__(self, wrapper: Any, loan: Loan, task: int) -> None:
        self._wrapper = weakref.ref(wrapper)
        self._loan = loan
        self.task = task

    def __del__(self) -> None:
        loan, wrapper = self._loan, self._wrapper()
        if loan.connection is None or sys.is_finalizing():
            return
        if wrapper is not None:
            if wrapper.allow_thread_sharing:
                return  # another thread's by now, who closes it
            wrapper.connection = None
            if wrapper.in_atomic_block:  # a generator's, say: the rest may not be committed alone
                wrapper.closed_in_transaction = wrapper.needs_rollback = True
        try:
            loan.end()
        except Exception:
            log.warning("a connection of an ended task could not be given back", exc_info=True)
