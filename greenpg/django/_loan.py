"""Connections lent to tasks, returned at the latest when the task has ended."""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

log: Final = logging.getLogger("greenpg.django")


class _Ties(threading.local):
    """The running task's ties, one for each wrapper that has a connection; they end with the task.

    Without monkey-patching, all tasks of a thread share this storage.
    """

    def __init__(self) -> None:
        self.of: weakref.WeakKeyDictionary[Any, _Tie] = weakref.WeakKeyDictionary()
        self.announced: set[int] = set()  # hashes, not tasks, so that tasks can be freed

    def announce_end(self, task: object) -> None:
        """Make the task's library cut the task's ties at its end, if it calls back at that point.

        Local storage alone would cut them later: when the task is freed, to which others may refer.
        """
        # gevent's Greenlet, eventlet's GreenThread
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
    """End the loans of the task that used local storage last, if that task has ended."""
    _ties.of  # noqa: B018  only at the next use eventlet frees it (eventlet/corolocal.py)


class Loan:
    """A connection that a wrapper has, and the function that gives it back.

    Django's signal `request_finished` does not do: a killed task does not send it, and the task's
    wrapper is part of a reference cycle.
    """

    __slots__ = ("__weakref__", "_give_back", "_process", "connection")

    def __init__(
        self, wrapper: Any, connection: Any, give_back: Callable[[Any], object], task: object
    ) -> None:
        self.connection = connection
        self._give_back = give_back
        self._process = os.getpid()
        _ties.announce_end(task)
        _ties.of[wrapper] = _Tie(weakref.ref(wrapper), self, hash(task))

    def end(self) -> None:
        """Give the connection back; further calls do nothing."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._process == os.getpid():
            self._give_back(connection)
        else:
            connection.close()  # the loan, and so the session, is the parent process's


@dataclass(slots=True, eq=False)
class _Tie:
    """Ends a loan when the task or the wrapper that has it is gone."""

    wrapper: weakref.ref[Any]
    loan: Loan
    task: int

    def __del__(self) -> None:
        loan, wrapper = self.loan, self.wrapper()
        if loan.connection is None or sys.is_finalizing():
            return
        if wrapper is not None:
            if wrapper.allow_thread_sharing:
                return  # another thread uses the wrapper by now and will close it
            wrapper.connection = None
            if wrapper.in_atomic_block:  # a generator's: its rest must not commit alone
                wrapper.closed_in_transaction = wrapper.needs_rollback = True
        try:
            loan.end()
        except Exception:
            log.warning("a connection of an ended task could not be given back", exc_info=True)
