"""The notices and notifications of a pipeline block."""

from __future__ import annotations

import pytest

import greenpg

NOTICE = "do $$ begin raise notice 'some'; end $$"


def test_notices_are_there_when_all_results_are_read(auto):
    auto.notices.clear()
    with auto.pipeline() as p:
        p.execute(NOTICE)
        assert p.execute("select 1").fetchone() == (1,)

        assert auto.notices == ["NOTICE:  some\n"]
        assert p.execute("select 2").fetchone() == (2,)


def test_notices_and_notifications_are_there_at_the_end(auto):
    auto.notices.clear()
    with auto.pipeline() as p:
        p.execute("listen news")
        p.execute("notify news, 'some'")
        p.execute(NOTICE)

    assert auto.notices == ["NOTICE:  some\n"]
    assert [note.payload for note in auto.notifies] == ["some"]


@pytest.mark.parametrize("end", ["deadline", "error"])
def test_notices_of_a_block_that_ends_half_way_are_kept(auto, gate, end):
    auto.notices.clear()
    limit = 0.1 if end == "deadline" else 60

    raised = pytest.raises((greenpg.DeadlineExceeded, LookupError))
    with raised, auto.deadline(limit), auto.pipeline() as p:
        p.execute(NOTICE)
        p.sync()
        p.execute(gate.sql)
        p.sync()
        if end == "error":
            gate.wait_for()
            raise LookupError
    gate.wait_for(0)

    assert auto.notices == ["NOTICE:  some\n"]
