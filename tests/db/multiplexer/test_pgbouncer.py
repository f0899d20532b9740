"""A multiplexer behind a PgBouncer that knows no prepared statements."""

from __future__ import annotations

import itertools

import pytest

from greenpg._protocol import prepared
from tests.db.bouncer import POOL_SIZE, bouncing

TIMES = 20


@pytest.fixture
def bouncer(dsn, tmp_path):
    with bouncing(dsn, tmp_path) as made:
        yield made


def ask_often(mux, number):
    """Return the answers that are not those to the questions."""
    asked = [number * TIMES + n for n in range(TIMES)]
    return [n for n in asked if mux.execute("select %s", (n,)).fetchone() != (n,)]


@pytest.mark.parametrize("threshold", [None, 2], ids=["plain", "prepared"])
def test_answers_belong_to_their_questions(bouncer, make, spawn, threshold):
    mux = make(bouncer.dsn, prepare_threshold=threshold)

    jobs = [spawn(ask_often, mux, number) for number in range(10)]

    assert [job.result() for job in jobs] == [[]] * 10


def test_statements_of_another_process_are_not_mistaken(bouncer, make, monkeypatch, spawn, gate):
    """Each process counts from 1, and PgBouncer gives both the same sessions."""

    def start(text):
        monkeypatch.setattr(prepared, "_numbers", itertools.count(1))
        mux = make(bouncer.dsn, prepare_threshold=0, max_size=1)
        mux.execute(text)
        return mux

    first = start("select 1")
    slow = spawn(first.execute, gate.sql)  # so the second one prepares in another session
    gate.wait_for()
    second = start("select 2")
    gate.open()
    slow.result()

    assert [second.execute("select 2").fetchone() for _ in range(POOL_SIZE)] == [(2,)] * POOL_SIZE
