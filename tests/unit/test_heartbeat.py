import ctypes

import pytest

from greenpg.backend import load
from greenpg.conformance._heartbeat import Stalled, calibrated, heartbeat

THREADS = load("threads")


def hold_the_interpreter(seconds: float) -> None:
    """Sleep without giving other threads a chance."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def test_idle_block_passes():
    with heartbeat(THREADS) as pulse:
        THREADS.sleep(0.1)

    assert pulse.beats > 1
    assert pulse.longest <= pulse.limit == calibrated(THREADS)


def test_held_interpreter_is_told():
    held = 4 * calibrated(THREADS)

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
