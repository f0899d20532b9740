"""The heartbeat: it finds blocking code, and does not count delays of the machine."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from greenpg.backend import load
from greenpg_conformance.toolkit.heartbeat import Stalled, calibrated, heartbeat
from greenpg_conformance.toolkit.machine import CoreWaits, Patience, clock_watch

THREADS = load("threads")
LONG = 0.5  # seconds: more than the waits for a core on a busy machine, which are left out


def hold_the_interpreter(seconds: float) -> None:
    """Sleep without giving other threads a chance."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def test_idle_block_passes():
    with heartbeat(THREADS) as pulse:
        THREADS.sleep(0.1)

    assert pulse.beats > 1
    assert pulse.longest <= pulse.limit == calibrated(THREADS)


def test_held_interpreter_is_reported():
    held = max(4 * calibrated(THREADS), LONG)

    with (
        pytest.raises(Stalled, match="threads: the ticker stood still for"),
        heartbeat(THREADS) as pulse,
    ):
        hold_the_interpreter(held)

    assert pulse.longest >= held / 2


def test_limit_can_be_given():
    with heartbeat(THREADS, limit=60) as pulse:
        hold_the_interpreter(4 * calibrated(THREADS))

    assert pulse.limit == 60


def test_error_of_the_block_is_not_masked():
    def hold_and_fail() -> None:
        hold_the_interpreter(4 * calibrated(THREADS))
        raise KeyError

    with pytest.raises(KeyError), heartbeat(THREADS):
        hold_and_fail()


@contextmanager
def stopped_clock_watch():
    """Stop the clock_watch while this process stands still, as if the whole machine did."""
    os.kill(clock_watch().pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(clock_watch().pid, signal.SIGCONT)


def test_machine_that_stood_still_is_no_stall():
    with heartbeat(THREADS) as pulse, stopped_clock_watch():
        hold_the_interpreter(max(4 * pulse.limit, LONG))

    assert pulse.longest > pulse.limit


def test_machine_that_stood_still_at_another_time_is_no_excuse():
    def stand_still_and_hold():
        with stopped_clock_watch():
            time.sleep(4 * calibrated(THREADS))
        hold_the_interpreter(max(4 * calibrated(THREADS), LONG))

    with pytest.raises(Stalled), heartbeat(THREADS):
        stand_still_and_hold()


@contextmanager
def one_busy_core():
    """Let this process share one core with another that is busy."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()
        os.sched_setaffinity(0, cores)


def spin_until_waited(seconds):
    began, ran = time.monotonic(), time.thread_time()
    while time.monotonic() - began - (time.thread_time() - ran) < seconds:
        pass


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="no scheduler statistics")
def test_wait_of_another_thread_for_a_core_is_counted():
    with one_busy_core():
        waits, counted = CoreWaits(), 0.0
        thread = threading.Thread(target=spin_until_waited, args=(0.3,))
        thread.start()
        while thread.is_alive():
            counted += waits.since()
            thread.join(0.01)

    assert counted > 0.15


@pytest.mark.parametrize("waited", [0.0, 7.0])
def test_patience_is_prolonged_by_waits_for_a_core_alone(monkeypatch, waited):
    monkeypatch.setattr(CoreWaits, "since", lambda _: waited)
    patience = Patience(0.01)

    before = patience.left()
    time.sleep(0.02)

    assert 0 < before <= 0.01
    assert (patience.left() > 0) == (waited > 0)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="no scheduler statistics")
def test_patience_lasts_while_another_program_has_the_core():
    with one_busy_core():
        patience = Patience(0.3)
        spin_until_waited(0.2)
        time.sleep(max(0.0, patience._end - time.monotonic()))

        assert patience.left() > 0.1


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="no scheduler statistics")
def test_patience_lasts_while_a_task_that_is_an_os_thread_waits_for_the_core():
    with one_busy_core():
        patience = Patience(0.3)
        task = THREADS.spawn(spin_until_waited, 0.6)
        time.sleep(0.3)
        left = patience.left()
        task.join()

    assert left > 0.05
