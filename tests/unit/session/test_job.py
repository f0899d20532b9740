"""A job runs, or is lost, where memory ends at any call of it."""

from __future__ import annotations

import sys

from greenpg._session.job import Job

CALLS = range(20)


class Failing:
    """Lets the nth call of a Python function fail."""

    def __init__(self, nth):
        self.left = nth

    def __call__(self, frame, event, argument):
        if event == "call" and self.left >= 0:
            self.left -= 1
            if self.left < 0:
                raise MemoryError(frame.f_code.co_name)


def outcome(nth):
    """Return what a job has done at whose nth call memory ends, and whether it ends there."""
    done = list[object]()

    def run(begin):
        if begin():
            done.append("run")

    job, fault = Job(run, lambda: done.append("lost")), Failing(nth)
    sys.setprofile(fault)
    try:
        job()
    except MemoryError:
        pass
    finally:
        sys.setprofile(None)
    del job
    return done, fault.left < 0


def test_one_of_both_happens_whichever_call_fails():
    found = [outcome(nth) for nth in CALLS]

    assert [done for done, _ in found if done not in (["run"], ["lost"])] == []
    assert {failed for _, failed in found} == {True, False}
    assert {done[0] for done, failed in found if failed} == {"lost"}


def test_it_is_lost_with_a_task_that_never_begins():
    done = list[object]()

    job = Job(lambda begin: done.append(begin()), lambda: done.append("lost"))
    del job

    assert done == ["lost"]


def test_cancelled_it_neither_runs_nor_is_lost():
    done = list[object]()
    job = Job(lambda begin: done.append(begin()), lambda: done.append("lost"))

    assert job.cancel()
    job()
    del job

    assert done == [False]


def test_what_has_begun_cannot_be_cancelled():
    job = Job(lambda begin: begin(), list)

    job()

    assert not job.cancel()
