"""Interrupts of executemany, and rows of any kind."""

from __future__ import annotations

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import greenpg
from tests.db.pipeline.conftest import ZONE, contents, outcome


def test_deadline_stops_it(conn, create, gate):
    table = create("(n int, v text)")
    rows = [(n,) for n in range(20)]
    query = f"insert into {table} select %s, {gate.sql.removeprefix('select ')}::text"

    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.1):
        conn.cursor().executemany(query, rows)

    with pytest.raises(greenpg.errors.InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    gate.wait_for(0)
    assert contents(conn, table) == []


@pytest.mark.green
def test_kill_leaves_the_connection_usable(auto, create, gate, spawn):
    table = create("(n int, v text)")
    rows = [(n,) for n in range(20)]
    call = gate.sql.removeprefix("select ")
    values = f"n, case when n = 10 then {call}::text end"
    query = f"insert into {table} select {values} from (select %s::int as n) x"

    job = spawn(lambda: auto.cursor().executemany(query, rows))
    gate.wait_for()
    job.kill()
    job.join()

    assert job.error is not None
    gate.wait_for(0)
    assert len(contents(auto, table)) == 10


@pytest.mark.green
@pytest.mark.parametrize("autocommit", [True, False])
def test_cancel_ends_all_rows(connect, create, gate, spawn, autocommit):
    conn, table = connect(), create("(n int, v text)")
    conn.autocommit = autocommit
    call = gate.sql.removeprefix("select ")
    values = f"n, case when n = 10 then {call}::text end"
    query = f"insert into {table} select {values} from (select %s::int as n) x"

    job = spawn(lambda: conn.cursor().executemany(query, [(n,) for n in range(20)]))
    gate.wait_for()
    conn.cancel()

    with pytest.raises(psycopg2.errors.QueryCanceled, match="user request"):
        job.result()
    gate.wait_for(0)
    conn.rollback()
    assert len(contents(conn, table)) == (10 if autocommit else 0)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(allow_infinity=False, allow_nan=False, places=3),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9),
    st.binary(max_size=9),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, ZONE])),
)


@pytest.fixture
def two(conn):
    cur = conn.cursor()
    cur.execute("create temp table a (n int, v text, w text); create temp table b (like a)")
    conn.commit()
    return conn


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(st.tuples(st.integers(0, 9), VALUES, VALUES), max_size=12))
def test_any_rows_give_equal_tables(two, rows):
    made = []
    for table, rows_of in (("a", list), ("b", iter)):
        made.append(outcome(two, rows_of, f"insert into {table} values (%s, %s, %s)", rows, table))
        two.rollback()

    assert repr(made[0]).replace("into a", "into b") == repr(made[1])
