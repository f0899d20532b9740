"""The conformance suite under pytest: it passes on sound backends and finds faults.

These are the rows that take little time, in one mode of each backend; `make modes` runs them in
the others, `make faults` runs the broken backends, `make conformance` all rows everywhere.
"""

from __future__ import annotations

from math import inf

import pytest

from greenpg_conformance.harness.describe import find, installed
from greenpg_conformance.harness.results import Column, Result, failed
from greenpg_conformance.harness.runner import Suite, columns_of
from greenpg_conformance.harness.tests import Test, discover

QUICK = ("waits", "tasks", "hub", "os_threads")
COLUMNS = [
    pytest.param(column, mode, id=str(column), marks=[] if n == 0 else pytest.mark.modes)
    for name in installed()
    for n, (column, mode) in enumerate(columns_of(name))
]
FAULTS = {
    "timeout_raises": "waits.timeout_is_a_return_value[read]",
    "wait_blocks": "waits.others_run_during_a_wait",
    "hang_up_is_ignored": "waits.hang_up_counts_as_ready[read]",
    "loop_spins_after_a_wait": "waits.idle_waiter_costs_nothing[read]",
    "timer_runs_on": "waits.nothing_late_comes_of_a_wait[ready]",
    "watcher_is_kept_after_close": "watcher.close_leaves_nothing",
    "interrupt_is_kept_for_later": "waits.interrupt_never_hits_a_later_wait",
    "spawn_runs_at_once": "tasks.spawn_does_not_run_the_function_at_once",
    "set_wakes_no_other_thread": "tasks.set_from_another_thread_wakes_an_idle_hub",
    "hub_may_wait": "hub.refused_before_anything_is_sent[execute]",
    "no_lock": "sharing.any_two_operations[execute]",
    "last_come_first_served": "sharing.operations_of_a_transaction_stay_in_order",
    "nested_entry": "inside.wait_callback_that_touches_its_connection[commit]",
    "forks_are_not_cut_off": "forks.fork_under_load[plain]",
    "query_is_not_cancelled": "interrupts.kill_cancels_the_query[execute]",
    "interrupt_is_forgotten": "doomed.interrupted_transaction_takes_only_a_rollback[kill]",
}
LIMIT = 4.0  # seconds, for tests that may hang on a broken backend


def named(*ids: str) -> list[Test]:
    known = {test.id: test for test in discover()}
    return [known[name] for name in ids]


def ran(dsn: str, fault: str, *ids: str, limit: float = LIMIT) -> list[Result]:
    _, mode = columns_of("gevent")[0]
    column = Column(f"tests.green.broken:{fault}", mode.name)
    suite = Suite(named(*ids), dsn, 7, lambda _: None, limit)
    return suite.run([(column, mode)], jobs=1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("column", "mode"), COLUMNS)
def test_backend_conforms(dsn, column, mode):
    quick = [test for test in discover() if test.module in QUICK]

    results = Suite(quick, dsn, 7, lambda _: None).run([(column, mode)], jobs=1)

    bad = [result for result in results if failed([result], strict=True)]
    assert not bad, "\n\n".join(f"{result.test}: {result.detail}" for result in bad)
    assert len(results) == len(quick)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_what_is_sound_passes(dsn):
    results = ran(dsn, "sound", *FAULTS.values(), limit=inf)

    assert {result.test: result.outcome + result.detail for result in results} == dict.fromkeys(
        FAULTS.values(), "pass"
    )


@pytest.mark.faults
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("fault", "test"), FAULTS.items(), ids=list(FAULTS))
def test_fault_is_found(dsn, fault, test):
    (result,) = ran(dsn, fault, test)

    assert result.outcome in ("fail", "hang"), result


@pytest.mark.timeout(60)
def test_hang_ends_with_all_stacks_and_the_next_test_runs(dsn):
    hanging, sound = FAULTS["set_wakes_no_other_thread"], "waits.data_ends_a_wait"

    results = ran(dsn, "set_wakes_no_other_thread", hanging, sound)

    assert [result.outcome for result in results] == ["hang", "pass"]
    assert "in test_set_from_another_thread_wakes_an_idle_hub" in results[0].detail


def test_backends_of_third_parties_need_no_description():
    backend, description = find("greenpg.threads:backend")

    assert backend.name == "threads"
    assert [mode.name for mode in description.modes] == ["plain"]
