"""What `make cluster` finds in a program's account and the rows of its table."""

from __future__ import annotations

import pytest

from tests.cluster._verdict import Event, judge

EVENTS = [Event("kill", began=10.0, promoted=12.0)]
TOLD = {
    "done": [(1, 1, 9.0), (1, 2, 12.5)],
    "unknown": [(1, 3)],
    "reads": [9.9, 10.5, 11.2],
    "errors": {},
    "broken": [],
}
ROWS = [(1, 1, 1), (1, 2, 1), (1, 3, 1)]


def judged(rows=ROWS, sessions=20, **changed):
    return judge("gevent-psycopg2-direct", {**TOLD, **changed}, rows, EVENTS, sessions, 20)


def test_all_promises_hold():
    outcome = judged()

    assert outcome.faults == []
    assert (outcome.done, outcome.unknown, outcome.found) == (2, 1, 1)
    assert outcome.resumed == [0.5]
    assert outcome.pause == pytest.approx(0.7)


def test_an_unknown_write_may_be_absent():
    assert judged(rows=ROWS[:2]).faults == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"rows": ROWS[1:]}, "1 acknowledged writes lost"),
        ({"rows": [(1, 1, 2), *ROWS[1:]]}, "1 writes done twice"),
        ({"rows": [*ROWS, (1, 4, 1)]}, "1 failed writes done"),
        ({"done": [(1, 1, 9.0), (1, 2, 13.5)]}, "writes resumed after 1.50 s"),
        ({"done": [(1, 1, 9.0)], "rows": [ROWS[0], ROWS[2]]}, "writes resumed after inf s"),
        ({"reads": [9.9, 12.4]}, "no read for 2.50 s"),
        ({"sessions": 21}, "21 sessions instead of 20"),
        ({"broken": ["KeyError"]}, "a task ended: KeyError"),
    ],
)
def test_a_broken_promise_is_named(changed, fault):
    assert judged(**changed).faults == [fault]
