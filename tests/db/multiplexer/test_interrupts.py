"""An exception at any line of the multiplexer's own code: each task gets its answer or an error."""

from __future__ import annotations

import sys
from itertools import count
from linecache import getline

import psycopg2
import pytest

from greenpg._protocol import groups
from greenpg.backend import current
from greenpg.multiplexer import _dispatcher, _group, _line

FILES = {module.__file__ for module in (_dispatcher, _group, _line, groups)}
TASKS = 3
LOOKS = 40  # at tasks that wait, until no exception is raised any more


class Interruption:
    """Raises MemoryError at the nth line that is executed while it is on, in any task."""

    def __init__(self, nth):
        self._left = nth
        self.place = None

    def __enter__(self):
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _enter(self, frame, event, arg):
        return self._step if frame.f_code.co_filename in FILES else None

    def _step(self, frame, event, arg):
        if event == "line" and self.place is None and not is_between(frame):
            self._left -= 1
            if self._left < 0:
                self.place = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise MemoryError
        return self._step


def is_between(frame):
    """Return True where nothing can be raised, though lines have events there.

    That is at `try:`, and at the end of a with statement, whose first line comes again then: from
    what was called before to what is protected, Python handles no signals and switches no task.
    """
    return getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(("with ", "try:"))


def ask(mux, number):
    return mux.execute("select %s", (number,)).fetchone()[0]


def ask_interrupted(mux, nth, spawn):
    """Return where the exception was raised, None if nowhere, and what is wrong."""
    with Interruption(nth) as interruption:
        jobs = [spawn(ask, mux, number) for number in range(1, TASKS + 1)]
        for _ in range(LOOKS):
            if all(job.ended for job in jobs):
                break
            current().sleep(0.005)
    wrong = []
    for number, job in enumerate(jobs, 1):
        job.join()
        failed = isinstance(job.error, (psycopg2.Error, MemoryError))
        if not failed and (job.error is not None or job.value != number):
            wrong.append((interruption.place, number, job.error or job.value))
    assert ask(mux, 0) == 0, interruption.place
    return interruption.place, wrong


@pytest.mark.green
@pytest.mark.parametrize(("fresh", "step"), [(False, 1), (True, 5)], ids=["open", "fresh"])
def test_exception_at_any_line_loses_and_mixes_up_nothing(make, spawn, capsys, fresh, step):
    wrong = []
    options = {"max_size": 2, "timeout": 5.0, "prepare_threshold": 1}
    mux = make(**options)

    for nth in count(0, step):
        if fresh:
            mux.close(0)
            mux = make(**options)
        place, found = ask_interrupted(mux, nth, spawn)
        wrong += found
        if place is None:
            break

    assert wrong == []
    capsys.readouterr()  # the loop reports what was raised in its own callbacks
