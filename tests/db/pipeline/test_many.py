"""executemany in a pipeline has psycopg2's row-by-row results, as it has for an iterator."""

from __future__ import annotations

import datetime as dt
import uuid
from contextlib import nullcontext
from decimal import Decimal
from enum import IntEnum
from typing import Any

import psycopg2
import psycopg2.extensions as ext
import pytest
from psycopg2.extras import DateRange, Inet, Json

import greenpg
from greenpg.pipeline import _executemany as _many
from tests.db.pipeline.conftest import ZONE, contents, outcome


class Colour(IntEnum):
    RED = 1


class Money:
    """Adapts itself."""

    def __conform__(self, protocol):
        return ext.AsIs("42")


class Shout(str):
    __slots__ = ()


def named(value):
    """The same in every process: no address."""
    return repr(value).partition(" at 0x")[0]


@pytest.fixture
def pipelined(monkeypatch):
    """Counts the parts that went through a pipeline."""
    parts: list[int] = []
    usual = _many._run_part

    def run_part(*args):
        parts.append(len(args[2]))
        return usual(*args)

    monkeypatch.setattr(_many, "_run_part", run_part)
    return parts


@pytest.fixture
def same(connect, create, pipelined):
    """Compare a list's outcome with an iterator's, each on a table of its own.

    `parts` says whether a list is pipelined in a transaction; outside of one none is.
    """

    def compared(columns, query, rows, *, autocommit=False, parts=True, before=()):
        outcomes = []
        in_transaction = not autocommit or "begin" in before
        for rows_of in (list, iter):
            conn = connect()
            conn.autocommit = autocommit
            for statement in before:
                conn.cursor().execute(statement)
            table = create(columns)
            found = outcome(conn, rows_of, query.replace("{t}", table), rows, table)
            outcomes.append(repr(found).replace(table, "{t}").replace(table.split(".")[1], "t"))
            if rows_of is list:
                assert bool(pipelined) is (parts and in_transaction)
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    return compared


TYPES: dict[str, tuple[str, list[Any]]] = {
    "small": ("int", [1, -1, 0, 2**31 - 1, -(2**31)]),
    "big": ("bigint", [1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 7]),
    "huge": ("numeric", [1, 2**64, -(10**30), 2**31, 3]),
    "ints_as_text": ("text", [1, 2**31, 2**64, -(2**31), -(2**63), 0]),
    "float": ("float8", [1.5, -0.0, 1e300, 5e-324, 1 / 3, *map(float, ("nan", "inf", "-inf"))]),
    "float_in_numeric": ("numeric", [1.5, 1e22, 1e-7, float("nan"), 3, 2.5]),
    "float_in_int": ("int", [1.5, 2.5, -2.5, 1e3, 7]),
    "floats_as_text": ("text", [1.5, -0.0, 1e22, 1e-7, float("nan"), float("-inf"), 3.0]),
    "real": ("real", [0.1, 1e-40, 16777217.0, float("inf")]),
    "decimal": ("numeric", [Decimal(x) for x in ("1.50", "-0", "1E+5", "nan", "7", "1e-10")]),
    "decimals_as_text": ("text", [Decimal(x) for x in ("1.50", "-0", "1E+5", "nan", "7")]),
    "bool": ("bool", [True, False, None, True, False]),
    "bools_as_text": ("text", [True, False, None, True]),
    "text": ("text", ["a", "it's", "a\\b", "100 %", "%s %(a)s", "\u2603", "", "$1", "\n", "E'"]),
    "char": ("char(5)", ["a", "ab   ", "abcde", ""]),
    "numbers_in_text": ("int", ["1", " 2 ", "-3", "4"]),
    "bytes": ("bytea", [b"", b"\0\xff", b"it's \\", bytearray(b"x"), memoryview(b"y")]),
    "date": ("date", [dt.date(2020, 2, 29), dt.date.min, dt.date.max, None]),
    "dates_as_text": ("text", [dt.date(2020, 2, 29), dt.date(99, 1, 1), dt.date.max]),
    "time": ("time", [dt.time(1, 2, 3), dt.time(23, 59, 59, 999999), dt.time(0)]),
    "timetz": ("timetz", [dt.time(1, 2, 3, tzinfo=ZONE), dt.time(1, 2, 3)]),
    "timestamp": (
        "timestamp",
        [dt.datetime(2020, 1, 2, 3, 4, 5, 678), dt.datetime(2020, 1, 2, tzinfo=ZONE)] * 2,
    ),
    "timestamptz": (
        "timestamptz",
        [dt.datetime(2020, 1, 2, 3, 4, 5, 678), dt.datetime(2020, 1, 2, tzinfo=ZONE), None] * 2,
    ),
    "moments_as_text": (
        "text", [dt.datetime(2020, 1, 2, 3, 4, 5, 60), dt.datetime(20, 1, 2, tzinfo=ZONE)] * 2,
    ),
    "interval": ("interval", [dt.timedelta(1, 2, 3), dt.timedelta(-1), dt.timedelta(0)]),
    "list": ("int[]", [[1, 2], [], [None, 3], None]),
    "lists": ("text[]", [["it's", "a\\b"], ['"', "{}", ","], [None]]),
    "json": ("jsonb", [Json({"a": "it's"}), Json([1]), Json(None), '{"b": 1}']),
    "uuid": ("uuid", [str(uuid.UUID(int=5)), None, str(uuid.UUID(int=6))]),
    "inet": ("inet", [Inet("127.0.0.1/8"), "10.0.0.1", Inet("::1")]),
    "range": ("daterange", [DateRange(dt.date(2020, 1, 1), None), DateRange(empty=True)]),
    "own": ("int", [Money(), 1, Money(), Colour.RED]),
    "subclass": ("text", [Shout("a"), "b", Shout("it's")]),
    "mixed": ("text", [1, "a", 1.5, None, True, Decimal("2"), dt.date(2020, 1, 1), b"x", 2**40]),
    "oid": ("oid", [1, Decimal("7"), 2**31, 3]),
    "money": ("money", [1, 1.5, 2**31, "3"]),
    "domain": ("information_schema.cardinal_number", [1, 2, "3"]),
    "enum_like": ("\"char\"", ["a", "b", None]),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPES)
def test_values_arrive_as_row_by_row(same, case):
    kind, values = TYPES[case]
    rows = [(n, value) for n, value in enumerate(values * 3)]

    same(f"(n int, v {kind})", "insert into {t} values (%s, %s)", rows)


@pytest.mark.parametrize(
    "value",
    ["a\0b", "\ud800", object(), {"a": 1}, 2**200, "x" * 9, (1, 2), 1.5j, dt.date],
    ids=named,
)
@pytest.mark.parametrize("autocommit", [False, True])
def test_value_that_cannot_be_written_fails_as_row_by_row(same, value, autocommit):
    rows = [("a",)] * 5 + [(value,)] + [("b",)] * 5

    same("(v varchar(5))", "insert into {t} values (%s)", rows, autocommit=autocommit)


STATEMENTS = {
    "insert": "insert into {t} values (%s, %s)",
    "columns": "insert into {t} (v, n) values (%s, %s)",
    "expression": "insert into {t} values (%s::int + 1, upper(%s))",
    "conflict": "insert into {t} values (%s, %s) on conflict do nothing",
    "upsert": "insert into {t} as t values (%s, %s) on conflict (n) do update set v = t.v || '+'",
    "returning": "insert into {t} values (%s, %s) returning n, v",
    "percent": "insert into {t} values (%s, %s || '100%%')",
    "comment": "insert into {t} values (%s, %s) -- some",
    "select": (
        "insert into {t} select g, %s || %s from generate_series(1, 3) g on conflict do nothing"
    ),
    "update": "update {t} set v = v || 'x' where n < %s or v = %s",
    "delete": "delete from {t} where n = %s or v = %s",
    "merge": (
        "merge into {t} t using (select %s::int as n, %s as v) s on t.n = s.n"
        " when matched then update set v = s.v when not matched then insert values (s.n, s.v)"
    ),
}


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("case", STATEMENTS)
def test_statements_end_as_row_by_row(same, case, autocommit):
    numbers = range(20) if case == "insert" else [n % 7 for n in range(20)]
    rows: list[Any] = [(n, str(i)) for i, n in enumerate(numbers)]
    if case == "columns":
        rows = [(str(n), n) for n in range(20)]

    same("(n int unique, v text)", STATEMENTS[case], rows, autocommit=autocommit)


def test_named_values(same):
    rows = [{"v": str(n), "n": n, "more": object()} for n in range(20)]

    same("(n int, v text, w text)", "insert into {t} values (%(n)s, %(v)s, %(v)s)", rows)


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize(
    "odd", [(1,), (1, "a", 2), (), "ab", None, 5, {"a": 1}, [1, "x"], iter((1, "x"))], ids=named
)
def test_rows_of_another_shape(same, odd, autocommit):
    rows = [(n, "x") for n in range(6)] + [[7, "list"], odd, (8, "after")]
    if hasattr(odd, "__next__"):
        rows[-2] = range(2)

    same("(n int, v text)", "insert into {t} values (%s, %s)", rows, autocommit=autocommit)


@pytest.mark.parametrize("autocommit", [False, True])
def test_missing_name(same, autocommit):
    rows = [{"n": n} for n in range(6)] + [{"m": 1}, {"n": 9}]

    same("(n int)", "insert into {t} values (%(n)s)", rows, autocommit=autocommit)


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("place", [0, 1, 10, 18, 19])
def test_failing_row(same, place, autocommit):
    rows = [(n,) for n in range(20)]
    rows[place] = (-1,)

    query, parts = "insert into {t} values (%s)", place > 0
    same("(n int check (n >= 0))", query, rows, autocommit=autocommit, parts=parts)


def test_rows_before_a_failing_one_stay_under_autocommit(auto, create, pipelined):
    table = create("(n int check (n >= 0))")

    with pytest.raises(psycopg2.errors.CheckViolation):
        auto.cursor().executemany(
            f"insert into {table} values (%s)", [(n if n < 6000 else -1,) for n in range(8000)]
        )

    assert len(contents(auto, table)) == 6000
    assert pipelined == []


@pytest.mark.parametrize("rows_of", [list, iter])
def test_each_row_is_a_transaction_under_autocommit(auto, create, rows_of):
    cur = auto.cursor()
    table = create(
        "(id serial, n int check (n >= 0), at timestamptz default now(),"
        " query text default current_query())"
    )
    tell = create(
        "() returns trigger language plpgsql as"
        " $$ begin perform pg_notify('rows', 'row'); return new; end $$",
        "function",
    )
    cur.execute(f"create trigger t before insert on {table} for each row execute function {tell}()")
    cur.execute("listen rows")
    auto.notifies.clear()

    cur.executemany(f"insert into {table} (n) values (%s)", rows_of([(n,) for n in range(10)]))

    assert len(auto.notifies) == 10
    cur.execute(f"select count(distinct at), array_agg(query order by n) from {table}")
    assert cur.fetchone() == (10, [f"insert into {table} (n) values ({n})" for n in range(10)])


@pytest.mark.parametrize("rows_of", [list, iter])
def test_no_row_is_run_twice_under_autocommit(auto, create, rows_of):
    table = create("(id serial, n int check (n >= 0))")
    query = f"insert into {table} (n) values (%s)"

    with pytest.raises(psycopg2.errors.CheckViolation):
        auto.cursor().executemany(query, rows_of([(1,), (2,), (3,), (4,), (-1,), (6,), (7,)]))
    auto.cursor().execute(query, (8,))

    assert contents(auto, table) == [("1", "1"), ("2", "2"), ("3", "3"), ("4", "4"), ("6", "8")]


@pytest.mark.parametrize("begun", ["begin", "with"])
def test_transaction_within_autocommit_is_pipelined(auto, create, pipelined, begun):
    cur, table = auto.cursor(), create("(n int)")
    if begun == "begin":
        cur.execute("begin")

    with auto if begun == "with" else nullcontext():
        cur.executemany(f"insert into {table} values (%s)", [(n,) for n in range(20)])
        assert auto.info.transaction_status == ext.TRANSACTION_STATUS_INTRANS

    assert pipelined == [18]


@pytest.mark.parametrize("autocommit", [False, True])
def test_constraint_checked_at_the_commit(same, autocommit):
    rows = [(n % 15,) for n in range(20)]
    columns = "(n int unique deferrable initially deferred)"

    same(columns, "insert into {t} values (%s)", rows, autocommit=autocommit)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6])
def test_few_rows(same, rows):
    query = "insert into {t} values (%s)"

    same("(n int)", query, [(n,) for n in range(rows)], parts=rows > _many.WORTH_IT)


@pytest.mark.parametrize("count", [5000, 5001, 5002, 10_001, 12_345])
def test_many_rows(conn, create, pipelined, count):
    cur, table = conn.cursor(), create("(n int, v text)")

    cur.executemany(f"insert into {table} values (%s, %s)", [(n, str(n)) for n in range(count)])

    assert cur.rowcount == count
    assert pipelined
    cur.execute(f"select count(*), count(distinct n), sum(n), bool_and(n::text = v) from {table}")
    assert cur.fetchone() == (count, count, count * (count - 1) // 2, True)


@pytest.mark.parametrize("wrong", [False, True])
def test_transaction_of_ones_own_under_autocommit(same, wrong):
    rows = [(n,) for n in range(10)] + ([(-1,)] if wrong else []) + [(11,)]
    query = "insert into {t} values (%s)"
    columns = "(n int check (n >= 0))"

    same(columns, query, rows, autocommit=True, before=("begin",))


def test_failed_transaction_says_so(conn):
    cur = conn.cursor()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        cur.execute("select 1 / 0")

    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cur.executemany("delete from pg_class where oid = %s", [(1,)] * 9)


def test_doomed_transaction_takes_no_rows(conn, create, gate):
    table = create("(n int)")
    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.05):
        conn.cursor().execute(gate.sql)

    with pytest.raises(greenpg.errors.InFailedSqlTransaction):
        conn.cursor().executemany(f"insert into {table} values (%s)", [(n,) for n in range(9)])
    conn.rollback()

    assert contents(conn, table) == []


def test_savepoints_of_the_program_are_kept(conn, create):
    cur, table = conn.cursor(), create("(n int)")
    cur.execute("savepoint greenpg_many")
    cur.execute(f"insert into {table} values (0)")

    cur.executemany(f"insert into {table} values (%s)", [(n,) for n in range(9)])
    cur.execute("rollback to savepoint greenpg_many")

    assert contents(conn, table) == []


@pytest.mark.parametrize(
    "query",
    ["select %s", "insert into {t} values (%s); select 1", "with x as (select 1) select %s"],
)
def test_other_statements_are_not_pipelined(same, query):
    same("(n int)", query, [(n,) for n in range(9)], parts=False)


def test_iterator_is_not_read_ahead(conn, create):
    cur, table = conn.cursor(), create("(n int)")
    seen = []

    def rows():
        for n in range(9):
            seen.append(len(contents(conn, table)))
            yield (n,)

    cur.executemany(f"insert into {table} values (%s)", rows())

    assert seen == list(range(9))


def test_old_libpq_does_without(same, monkeypatch):
    monkeypatch.setattr(_many, "has_pipelines", lambda: False)

    same("(n int)", "insert into {t} values (%s)", [(n,) for n in range(20)], parts=False)


@pytest.mark.parametrize("kind", [int, str])
def test_adapter_registered_again_is_used(same, monkeypatch, kind):
    monkeypatch.setitem(ext.adapters, (kind, ext.ISQLQuote), lambda value: ext.AsIs(f"'<{value}>'"))

    found = same("(v text)", "insert into {t} values (%s)", [(kind(n),) for n in range(9)])

    assert "<8>" in found


@pytest.mark.parametrize("encoding", ["LATIN1", "UTF8", "SQL_ASCII"])
def test_text_is_in_the_connections_encoding(conn, create, encoding):
    table = create("(v text)")
    conn.set_client_encoding(encoding)

    values = ["\u00e9", "a"] if encoding != "SQL_ASCII" else ["e", "a"]
    conn.cursor().executemany(f"insert into {table} values (%s)", [(v,) for v in values * 5])
    conn.commit()
    conn.set_client_encoding("UTF8")

    assert contents(conn, table) == [(repr(v),) for v in values * 5]


def test_unencodable_text_fails_as_row_by_row(same):
    rows = [("a",)] * 5 + [("\u2603",)] + [("b",)] * 5

    same("(v text)", "insert into {t} values (%s)", rows, before=("set client_encoding to latin1",))


def test_rowcount_is_of_the_last_statement(conn, create):
    cur, table = conn.cursor(), create("(n int)")
    cur.executemany(f"insert into {table} values (%s)", [(n,) for n in range(9)])
    assert cur.rowcount == 9

    cur.execute("select 1")

    assert cur.rowcount == 1


def test_trigger_sees_the_rows_one_by_one(conn):
    cur = conn.cursor()
    cur.execute("create temp table t (n int, before int)")
    cur.execute(
        "create function pg_temp.count() returns trigger language plpgsql as"
        " $$ begin select count(*) into new.before from t; return new; end $$"
    )
    cur.execute("create trigger c before insert on t for each row execute function pg_temp.count()")

    cur.executemany("insert into t (n) values (%s)", [(n,) for n in range(20)])

    assert contents(conn, "t") == [(str(n), str(n)) for n in range(20)]


def test_notices_are_kept(conn, create):
    cur, table = conn.cursor(), create("(n int)")
    conn.notices.clear()

    cur.execute(
        f"create function pg_temp.say() returns trigger language plpgsql as"
        f" $$ begin raise notice 'row %', new.n; return new; end $$;"
        f"create trigger s before insert on {table} for each row execute function pg_temp.say()"
    )
    cur.executemany(f"insert into {table} values (%s)", [(n,) for n in range(9)])

    assert [text.split()[-1] for text in conn.notices] == [str(n) for n in range(9)]
