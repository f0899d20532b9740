"""A pool's numbers hold whatever interrupts a loan, and whoever reads them."""

from __future__ import annotations

from typing import Any

import pytest

from greenpg.threads import Task
from tests.unit.pool.test_pool import world  # noqa: F401  a fixture


def test_a_long_loan_that_is_cut_short_takes_none_from_the_brief_ones(world, monkeypatch):  # noqa: F811
    state, found = world.pool.performer.state, []

    def fail(*_):
        raise MemoryError

    def lend_long():
        with monkeypatch.context() as patch, world.lease():
            patch.setattr(state, "give_back", fail)
            world.sim.park(0.1)

    def borrow():
        with pytest.raises(MemoryError):
            lend_long()
        found.append(world.pool.measures())

    world.run(borrow)

    loans = found[0].loans
    assert set(loans.counts) == {0}
    assert loans.total == 0


def test_a_connection_that_proves_unusable_was_never_counted_as_lent(world, monkeypatch):  # noqa: F811
    checked_by, found = world.server.input_check, list[int]()

    def waits() -> int:
        return sum(world.pool.measures().waits.counts)

    def input_check(conn):
        def has_input(zero: int) -> Any:
            found.append(waits())
            return check(zero)

        check = checked_by(conn)
        return has_input

    def borrow():
        for broken in (False, True, False):
            with world.lease() as conn:
                found.append(waits())
                conn.input = broken

    monkeypatch.setattr(world.server, "input_check", input_check)
    world.run(borrow)

    assert len(world.server.made) == 2
    assert found == sorted(found)
    assert found[-1] == waits() == 3


def test_another_thread_reads_no_numbers_amid_a_step(world):  # noqa: F811
    found = []
    with world.pool.performer.lock:
        task = Task(lambda: found.append(world.pool.measures()), ())
        task.join(0.2)
        early = list(found)

    task.join()
    assert not early
    assert found


def test_a_forked_childs_counters_go_on(world):  # noqa: F811
    def borrow():
        with world.lease():
            pass
        world.pool.performer.apply(world.pool.performer.state.drain)

    world.run(borrow)
    before = world.pool.measures()

    world.pool.forked()

    after = world.pool.measures()
    assert before.closed == {"drained": 1}
    assert (after.closed, after.loans, after.waits) == (before.closed, before.loans, before.waits)
