"""`greenpg.watch`: what holds the event loop up is seen, logged and counted, on every backend."""

from __future__ import annotations

import logging
from time import monotonic

import pytest

import greenpg
from greenpg.backend import current
from greenpg.stalls import watches
from greenpg.sync import counts
from greenpg.threads import pristine
from tests import programs
from tests.db.conftest import until

_native = pristine("time")


@pytest.fixture
def watched(caplog):
    with caplog.at_level(logging.WARNING, "greenpg"), greenpg.watch(0.2, backend=current()) as made:
        until(lambda: made._beat, "it beats")
        yield made


def hold_up(seconds):
    """Keep the loop from running, as a blocking call does."""
    _native.sleep(seconds)


@pytest.mark.green
def test_what_holds_the_loop_up_is_logged_with_its_stack_and_counted(watched, caplog):
    before = counts.stalls, counts.stalled

    hold_up(0.5)
    until(lambda: watched.count, "noted")

    stall = watched.stalls[0]
    assert stall.seconds >= 0.2
    assert "in hold_up" in stall.stack
    assert "test_what_holds_the_loop_up" in stall.stack
    assert "the event loop was held up for 0." in caplog.text
    assert "in hold_up" in caplog.text
    assert (counts.stalls, counts.stalled) >= (before[0] + 1, before[1] + 0.2)
    assert watched.seconds >= stall.seconds


def compute(seconds):
    end = monotonic() + seconds
    while monotonic() < end:
        sum(range(1000))


@pytest.mark.green
def test_code_that_computes_is_seen(watched):
    compute(0.6)
    until(lambda: watched.count, "noted")

    assert "in compute" in watched.stalls[0].stack


@pytest.mark.green
def test_code_that_never_yields_is_reported_while_it_runs(watched, caplog):
    end = monotonic() + 20
    while "has been held up for" not in caplog.text:
        assert monotonic() < end, "never reported"
        _native.sleep(0.01)

    assert "test_code_that_never_yields" in caplog.text
    until(lambda: watched.count, "noted")


def test_tasks_that_wait_hold_nothing_up(watched, gate, connect, spawn):
    job = spawn(lambda: connect().cursor().execute(gate.sql))
    gate.wait_for()

    until(lambda: watched._beat > 20, "some beats")

    assert all("execute" not in stall.stack for stall in watched.stalls)
    gate.open()
    job.result()


def test_a_watch_ends_its_thread_and_its_task(watched):
    watched.close()

    assert watched._looker.join(0)
    beats = watched._beat
    current().sleep(0.3)
    assert watched._beat == beats
    watched.close()


@pytest.mark.green
def test_a_watch_whose_task_was_killed_reports_nothing(watched):
    watched._task.kill()
    until(lambda: watched._looker.join(0), "the thread has ended")

    hold_up(0.3)
    current().pause()

    assert watched.count == 0


FORK = """
import os, sys, time
import greenpg
from greenpg.backend import current
greenpg.use(sys.argv[1])
watch = greenpg.watch(0.1)
current().sleep(0.2)
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
current().sleep(0.2)
before = watch.count
time.sleep(0.5)
while watch.count == before:
    current().sleep(0.01)
os._exit("<string>" not in watch.stalls[-1].stack)
"""


@pytest.mark.green
def test_a_forked_child_is_watched_too():
    done = programs.run(FORK, current().name)

    assert done.returncode == 0, done.stderr


CLOSE_IN_CHILD = """
import os, signal, sys, time
import greenpg
with greenpg.watch(0.1, backend="threads") as watch:
    while not watch._beat:
        time.sleep(0.01)
    child = os.fork()
    if not child:
        signal.alarm(10)
        assert watch.closed
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_watch_of_os_threads_can_be_closed_in_a_forked_child():
    done = programs.run(CLOSE_IN_CHILD)

    assert done.returncode == 0, done.stderr


def test_the_watches_of_the_process_are_listed_until_they_end(watched):
    assert watches() == [watched]
    assert not watched.closed

    watched.close()

    assert watched.closed
    assert watches() == []


def test_a_threshold_of_nothing_is_refused():
    with pytest.raises(ValueError, match="more than 0"):
        greenpg.watch(0, backend=current())
