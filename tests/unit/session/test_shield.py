"""The choice among several interrupts of an operation."""

import errno
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from greenpg._psycopg2.state import ERRORS
from greenpg._session.shield import Shield, Unrecovered, graver


class Late(Exception):
    """A timeout."""


class Killed(BaseException):
    """The library's exit."""


FIRST, SECOND, CLOSED, KILLED = Late("first"), Late("second"), ERRORS.interface("closed"), Killed()


def raising(error: BaseException | None) -> Callable[[float], bool]:
    def once(_left: float) -> bool:
        nonlocal error
        if error is None:
            return True
        thrown, error = error, None
        raise thrown

    return once


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (None, FIRST, FIRST),
        (FIRST, SECOND, SECOND),
        (FIRST, KILLED, KILLED),
        (KILLED, SECOND, KILLED),
        (CLOSED, FIRST, FIRST),
        (FIRST, CLOSED, FIRST),
        (KILLED, CLOSED, KILLED),
        (None, CLOSED, CLOSED),
    ],
)
def test_verdict_is_the_weightier_interrupt_or_the_later_one(
    first: BaseException | None, second: BaseException, wanted: BaseException
) -> None:
    shield = Shield(SimpleNamespace(exits=(Killed,)), ERRORS, first, 5)

    shield.wait(raising(second))

    assert shield.verdict is wanted


@pytest.mark.parametrize(
    ("first", "later", "wanted"),
    [(KILLED, SECOND, KILLED), (FIRST, KILLED, KILLED), (FIRST, SECOND, SECOND)],
)
def test_tidying_up_raises_the_weightier_interrupt(
    first: BaseException, later: BaseException, wanted: BaseException
) -> None:
    assert graver(SimpleNamespace(exits=(Killed,)), ERRORS, first, later) is wanted


def test_second_ctrl_c_propagates_from_tidying_up() -> None:
    first, second = KeyboardInterrupt(), KeyboardInterrupt()

    assert graver(SimpleNamespace(exits=()), ERRORS, first, second) is second


def test_wait_that_lacks_descriptors_ends_the_recovery_at_once() -> None:
    shield = Shield(SimpleNamespace(exits=()), ERRORS, FIRST, 5)
    calls = []

    def once(left: float) -> bool:
        calls.append(left)
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(Unrecovered):
        shield.wait(once)

    assert len(calls) == 1
    assert shield.verdict is FIRST
