"""Prepared statements: which there are, and that nobody notices but the server."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg2
import pytest

from greenpg.errors import DivisionByZero, UniqueViolation
from tests.db.multiplexer.conftest import until

OFTEN = 8  # more than the threshold, by default
VALUES = [
    1, -1, 2**40, -(2**70), 1.5, -2.5, float("inf"), True, False, None, "", "it's \\ 100%",
    "gr\u00fcn", b"\x00\xff", dt.date(2020, 2, 29), dt.datetime(2020, 2, 29, 1, 2, 3, 4),
    dt.datetime(2020, 2, 29, tzinfo=dt.timezone.utc), Decimal("1.50"), Decimal("NaN"), [1, 2],
    (3, 4),
]  # fmt: skip


@pytest.fixture
def one(make):
    """A multiplexer of one connection."""
    return make(max_size=1)


def prepared(mux):
    """Return the texts that are prepared in the session."""
    found = mux.execute("select statement from pg_prepared_statements order by prepare_time")
    return [text for (text,) in found if "pg_prepared" not in text]


def repeat(mux, query, args=None, times=OFTEN):
    """Execute a statement often and return its answer, which is always the same."""
    answers = [plain(mux.execute(query, args).fetchall()) for _ in range(times)]
    assert len({repr(answer) for answer in answers}) == 1
    return answers[0]


def plain(rows):
    return [tuple(bytes(v) if type(v) is memoryview else v for v in row) for row in rows]


def test_text_that_is_used_often_is_prepared(one):
    repeat(one, "select 1", times=5)
    before = prepared(one)

    repeat(one, "select 1", times=2)

    assert (before, prepared(one)) == ([], ["select 1"])


def test_parameters_are_sent_beside_the_text(one):
    for number in range(OFTEN):
        assert one.execute("select %s, %s", (number, "x")).fetchone() == (number, "x")
        assert one.execute("select %(a)s + %(a)s", {"a": number}).fetchone() == (2 * number,)

    assert prepared(one) == ["select $1, $2", "select $1 + $2"]


def test_threshold_of_none_prepares_nothing(make):
    mux = make(max_size=1, prepare_threshold=None)

    repeat(mux, "select 1")

    assert prepared(mux) == []


def test_least_recently_used_go(make):
    mux = make(max_size=1, prepare_threshold=1, prepared_max=3)
    for text in ("select 1", "select 2", "select 1", "select 3"):
        repeat(mux, text, times=2)

    repeat(mux, "select 4", times=2)

    assert prepared(mux) == ["select 1", "select 3", "select 4"]
    assert repeat(mux, "select 1") == [(1,)]


def test_preparations_outlast_a_line(one):
    repeat(one, "select 1")
    until(lambda: not one._dispatcher.lines, "the connection has gone back to the pool")

    repeat(one, "select 1", times=1)

    assert prepared(one) == ["select 1"]


@pytest.mark.parametrize("value", VALUES)
def test_values_are_those_of_a_cursor(one, auto, value):
    cur = auto.cursor()
    query = "select %s, %s is null" if isinstance(value, int | float) else "select %s"
    args = (value,) * query.count("%")
    cur.execute(query, args)

    answer = repeat(one, query, args)

    assert repr(answer) == repr(plain(cur.fetchall()))


@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("select interval %s", ("1 day",)),
        ("select a, b from (values (1, 2), (2, 1)) t (a, b) order by %s", (2,)),
        ("select distinct on (%s) a, b from (values (2, 1), (2, 2)) t (a, b)", (1,)),
        ("select count(*), a %% 2 from generate_series(1, 5) a group by %s order by 1", (2,)),
        ("select 'a%%', %s", (1,)),
        ("select '%s', 1", (1,)),
        ("select 1%s", (1,)),
        ("select %s is null", ("x",)),
        ("select %s", (["a"],)),
        ("explain (costs off) select %s", (1,)),
        ("table pg_am order by %s limit 1", (1,)),
    ],
)
def test_what_a_parameter_cannot_stand_for_is_left_to_psycopg2(one, auto, query, args):
    cur = auto.cursor()
    cur.execute(query, args)

    assert repeat(one, query, args) == cur.fetchall()


def test_changed_columns_go_unnoticed(one, create, auto):
    table = create("(a int)")
    query = f"select * from {table}"
    one.execute(f"insert into {table} values (%s)", (1,))
    repeat(one, query)

    auto.cursor().execute(f"alter table {table} add b text default 'x'")

    found = one.execute(query)
    assert ([column.name for column in found.description], found.fetchall()) == (
        ["a", "b"], [(1, "x")],
    )  # fmt: skip
    assert repeat(one, query) == [(1, "x")]
    assert prepared(one).count(query) == 1


def test_dropped_type_goes_unnoticed(one, create, auto):
    table, cur = create("(a int)"), auto.cursor()
    kind = f"{table}_kind"
    query = f"select a from {table} where kind = %s"

    def make_type():
        cur.execute(
            f"drop type if exists {kind} cascade; create type {kind} as enum ('x', 'y');"
            f"alter table {table} add kind {kind} default 'x'"
        )

    make_type()
    one.execute(f"insert into {table} values (1)")
    repeat(one, query, ("x",))
    make_type()

    assert repeat(one, query, ("x",)) == [(1,)]
    cur.execute(f"drop type {kind} cascade")


def test_forgotten_preparations_go_unnoticed(one, create):
    one.execute(
        "create or replace function pg_temp_forget() returns void language plpgsql as"
        " $$begin execute 'deallocate all'; end$$"
    )
    repeat(one, "select 1")

    one.execute("select pg_temp_forget()")

    assert repeat(one, "select 1") == [(1,)]
    assert "select 1" in prepared(one)
    one.execute("drop function pg_temp_forget()")


def test_errors_are_a_cursors(one, create):
    table = create("(n int primary key)")
    for number in range(1, OFTEN):
        one.execute(f"insert into {table} values (%s)", (number,))
        assert one.execute("select 6 / %s", (number,)).rowcount == 1

    for _ in range(2):
        with pytest.raises(UniqueViolation) as unique:
            one.execute(f"insert into {table} values (%s)", (1,))
        assert unique.value.diag.constraint_name == f"{table.split('.')[-1]}_pkey"
        with pytest.raises(DivisionByZero):
            one.execute("select 6 / %s", (0,))
        with pytest.raises(psycopg2.errors.UndefinedTable):
            one.execute("select * from nowhere where a = %s", (0,))


def test_error_of_a_text_that_cannot_be_prepared_is_psycopg2s(one):
    for _ in range(OFTEN):
        with pytest.raises(psycopg2.errors.UndefinedTable) as error:
            one.execute("select * from nowhere where a = %s", (7,))

        assert "where a = 7" in str(error.value)


def test_many_tasks_share_preparations(make, spawn):
    mux = make(max_size=2, prepare_threshold=2)

    jobs = [spawn(repeat, mux, "select %s", (number,)) for number in range(50)]

    assert [job.result() for job in jobs] == [[(number,)] for number in range(50)]
    assert prepared(mux).count("select $1") == 1


@pytest.mark.parametrize("options", [{"prepared_max": 0}, {"max_in_flight": 0}, {"slow": 0}])
def test_limits_are_checked(make, options):
    with pytest.raises(ValueError, match=r"=0: give (at least 1|more than 0 seconds)"):
        make(**options)
