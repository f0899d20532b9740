"""The last failures of a pool: what failed, how often and with which error, on every backend."""

from __future__ import annotations

import time

import pytest

from greenpg._session.failures import KEPT, Failures
from greenpg.errors import PoolTimeout
from tests.db.conftest import until
from tests.db.pool.conftest import NOWHERE, answer, pid, terminate


def test_a_connect_that_fails_is_kept_with_its_text(make):
    began = time.time()
    pool = make(NOWHERE)

    with pytest.raises(PoolTimeout):
        pool.getconn(timeout=0.3)

    found = {failure.what: failure for failure in pool.failures()}
    assert found.keys() == {"connect", "request"}
    request, connect = found["request"], found["connect"]
    assert (issubclass(request.error, PoolTimeout), request.count) == (True, 1)
    assert "no connection in 0.3 s" in request.text
    assert connect.error.__name__ == "OperationalError"
    assert "127.0.0.1" in connect.text
    assert connect.at >= began


def time_out(pool):
    with pytest.raises(PoolTimeout):
        pool.getconn(timeout=0.01)


def test_failures_of_one_kind_are_counted(make):
    pool = make()
    with pool.connection():
        time_out(pool)
        (first,) = pool.failures()
        time_out(pool)

    (last,) = pool.failures()

    assert (first.count, last.count) == (1, 2)
    assert last.at >= first.at


def test_a_connection_found_broken_is_kept(make, dsn):
    pool = make()
    with pool.connection() as conn:
        ended = pid(conn)
    terminate(dsn, ended)

    with pool.connection() as conn:
        assert pid(conn) != ended

    assert [failure.what for failure in pool.failures()] == ["check"]


def test_a_connection_that_cannot_be_cleaned_is_kept_with_its_sqlstate(make):
    def reset(conn):
        answer(conn, "select 1 / 0")

    pool = make(reset=reset)
    conn = pool.getconn()
    answer(conn)
    pool.putconn(conn)

    until(pool.failures, "kept")

    (failure,) = pool.failures()
    assert (failure.what, failure.sqlstate) == ("reset", "22012")


def test_a_failure_keeps_nothing_of_its_error_alive():
    class Freed(Exception):
        freed = False

        def __del__(self):
            Freed.freed = True

    failures = Failures()

    failures.note("connect", Freed("gone"))

    assert Freed.freed
    assert failures.last()[0].text == "gone"


def test_the_latest_kinds_are_kept():
    failures = Failures()

    for number in range(KEPT + 5):
        failures.note(str(number), ValueError())
    failures.note("10", ValueError())

    found = failures.last()
    assert [failure.what for failure in found[:2]] == ["10", str(KEPT + 4)]
    assert len(found) == KEPT
    assert found[0].count == 2
