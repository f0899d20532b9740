"""The application_name that a pool gives to its sessions."""

from __future__ import annotations

import os
from typing import Any

import pytest

from greenpg.backend import current
from greenpg_conformance.toolkit.jobs import Job
from tests.db.conftest import until
from tests.db.pool.conftest import answer

SHOW = "show application_name"


def test_sessions_have_the_pools_and_the_workers_name(make):
    pool = make(name="web", application_name="shop {pool} {pid}")

    with pool.connection() as conn:
        assert answer(conn, SHOW) == f"shop web {os.getpid()}"


def named(pool, seen):
    with pool.connection() as conn:
        assert int(conn.info.transaction_status) == 0
        seen.append(answer(conn, SHOW))
        until(lambda: len(seen) > 1, "both have one")


def test_a_loan_has_its_tasks_name(make):
    hooked: list[Any] = []
    pool = make(name="web", application_name="{pool}:{task}", on_acquire=hooked.append, max_size=2)
    seen: list[str] = []

    jobs = [Job(current(), named, (pool, seen)) for _ in range(2)]
    for job in jobs:
        job.result()

    assert len(set(seen)) == len(hooked) == 2
    assert all(name.startswith("web:") and len(name) > 4 for name in seen)


def test_without_a_task_in_it_a_loan_sends_nothing(make):
    pool = make(application_name="{pool}")

    assert pool._pool._on_acquire is None


def test_an_unknown_field_is_refused(make):
    with pytest.raises(ValueError, match="give only"):
        make(application_name="{host}")
