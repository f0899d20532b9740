"""Statements of many tasks on few connections: results, errors, order, on every backend."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg2
import psycopg2.extensions as ext
import pytest

import greenpg
from greenpg import sql
from greenpg.errors import (
    DeadlineExceeded,
    DivisionByZero,
    PoolClosed,
    PoolTimeout,
    TooManyRequests,
    UniqueViolation,
)
from tests.db.multiplexer.conftest import NOWHERE, SLOW, pid, until


def test_result_has_a_cursors_attributes(mux, create):
    table = create("(id int)")

    inserted = mux.execute(f"insert into {table} select generate_series(1, 5)")
    found = mux.execute(f"select id as number, 'x' as word from {table} order by id")
    changed = mux.execute(f"update {table} set id = id + 1 where id > 2 returning id")
    nothing = mux.execute(f"select 1 from {table} where false")

    assert (inserted.rowcount, inserted.statusmessage, inserted.description) == (
        5, "INSERT 0 5", None,
    )  # fmt: skip
    assert (found.rowcount, found.statusmessage) == (5, "SELECT 5")
    assert [column.name for column in found.description] == ["number", "word"]
    assert found.description[0].type_code == 23
    assert (found.fetchone(), found.fetchmany(2)) == ((1, "x"), [(2, "x"), (3, "x")])
    assert (list(found), found.fetchone()) == ([(4, "x"), (5, "x")], None)
    assert (changed.rowcount, changed.fetchall()) == (3, [(4,), (5,), (6,)])
    assert (nothing.fetchall(), nothing.rowcount, len(nothing.description)) == ([], 0, 1)
    with pytest.raises(psycopg2.ProgrammingError, match="no results"):
        inserted.fetchone()


@pytest.mark.parametrize(
    ("query", "args", "expected"),
    [
        ("select %s, %s", (1, "it's"), (1, "it's")),
        ("select %(a)s, %(b)s", {"a": None, "b": dt.date(2020, 1, 2)}, (None, dt.date(2020, 1, 2))),
        ("select 5 %% 3, %s", (Decimal("1.5"),), (2, Decimal("1.5"))),
        ("select 5 % 3, ''", None, (2, "")),
        (b"select 'bytes'", None, ("bytes",)),
        (sql.SQL("select 1 as {}").format(sql.Identifier('a"b')), None, (1,)),
        ("select %s", ([1, 2],), ([1, 2],)),
        ("select 'gr\u00fcn'", None, ("gr\u00fcn",)),
    ],
)
def test_parameters_and_values_are_those_of_a_cursor(mux, query, args, expected):
    assert mux.execute(query, args).fetchone() == expected


def test_typecasters_of_the_connection_count(make):
    def configure(conn):
        ext.register_type(ext.new_type((23,), "LOUD", lambda value, _: [value]), conn)

    mux = make(configure=configure)

    assert mux.execute("select 5").fetchone() == (["5"],)


def test_typecaster_that_raises_harms_only_its_fetch(make):
    def configure(conn):
        ext.register_type(ext.new_type((23,), "BROKEN", lambda n, _: 6 // (2 - int(n or 0))), conn)

    mux = make(configure=configure)
    broken = mux.execute("select generate_series(1, 3)")

    assert broken.fetchone() == (6,)
    with pytest.raises(ZeroDivisionError):
        broken.fetchone()
    assert mux.execute("select 1").fetchone() == (6,)


def test_error_is_a_cursors_and_touches_its_own_statement_only(mux, create, spawn):
    table = create("(id int primary key)")
    mux.execute(f"insert into {table} values (1)")

    jobs = [spawn(mux.execute, f"insert into {table} values (%s)", (n,)) for n in (2, 1, 3)]
    outcomes = [job.join().error for job in jobs]

    assert (outcomes[0], outcomes[2]) == (None, None)
    error = outcomes[1]
    assert isinstance(error, UniqueViolation)
    assert error.pgcode == "23505"
    assert error.diag.table_name == table.split(".")[1]
    assert mux.execute(f"select array_agg(id order by id) from {table}").fetchone() == ([1, 2, 3],)


def test_error_of_a_commit_is_raised(mux, create):
    table = create("(id int unique deferrable initially deferred)")
    mux.execute(f"insert into {table} values (1)")

    with pytest.raises(UniqueViolation):
        mux.execute(f"insert into {table} values (1)")

    assert mux.execute(f"select count(*) from {table}").fetchone() == (1,)


def test_answers_belong_to_their_questions(mux, spawn):
    def ask(number):
        return [mux.execute("select %s", (n,)).fetchone()[0] for n in range(number, number + 20)]

    jobs = [spawn(ask, 100 * n) for n in range(20)]

    assert [job.result() for job in jobs] == [list(range(100 * n, 100 * n + 20)) for n in range(20)]


def test_executemany_is_one_transaction(mux, create):
    table = create("(id int primary key)")

    many = mux.executemany(
        f"insert into {table} values (%s) returning -id", [(n,) for n in range(1000)]
    )
    with pytest.raises(DivisionByZero):
        mux.executemany(f"insert into {table} values (6 / %s)", [(-1,), (0,), (-2,)])

    assert [result.fetchone()[0] for result in many] == [-n for n in range(1000)]
    assert mux.execute(f"select count(*) from {table}").fetchone() == (1000,)
    assert mux.executemany(f"insert into {table} values (%s)", []) == []


@pytest.mark.parametrize(
    "statement", ["begin", "set work_mem = '1MB'", "listen a", "select 1; select 2", "lock t"]
)
def test_what_touches_the_session_is_refused(mux, statement):
    with pytest.raises(psycopg2.ProgrammingError, match="ConnectionPool"):
        mux.execute(statement)

    assert mux.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("%s", (ext.AsIs("begin"),)),
        ("/* %s */ select 1", (ext.AsIs("*/ begin /*"),)),
        (b"begin", None),
        (sql.SQL("begin"), None),
    ],
)
def test_parameters_hide_no_command(mux, query, args):
    with pytest.raises(psycopg2.ProgrammingError, match="BEGIN"):
        mux.execute(query, args)


class Raw:
    """Is written by a user's adapter, which writes anything."""

    def __conform__(self, protocol):
        return ext.AsIs("pg_advisory_lock(1)")


@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("select %s", (ext.AsIs("pg_advisory_lock(1)"),)),
        ("select %(a)s", {"a": ext.AsIs("setseed(1)")}),
        ("select %s", ([ext.AsIs("lastval()")],)),
        ("select pg_advisory_lock%s", ((1,),)),
        ("select 1 %s", [ext.AsIs("into temp t")]),
        ("select %s", (ext.AsIs("1; begin"),)),
        ("select 1 /* %s */", ("*/, pg_advisory_lock(1) /*",)),
        ("select 1 -- %s", ("\n, pg_advisory_lock(1) --",)),
        ("select %s", (Raw(),)),
    ],
)
@pytest.mark.parametrize("times", [1, 7])
def test_parameters_hide_nothing_in_the_midst_of_a_statement(mux, query, args, times):
    for _ in range(times):
        with pytest.raises(psycopg2.ProgrammingError, match="ConnectionPool"):
            mux.execute(query, args)
    with pytest.raises(psycopg2.ProgrammingError, match="ConnectionPool"):
        mux.executemany(query, [args])


def test_session_that_was_changed_after_all_is_replaced(mux, monkeypatch):
    monkeypatch.setattr("greenpg.multiplexer._texts.refusal", lambda query: None)
    before = pid(mux)

    for statement in ("begin", "set work_mem = '1MB'", "prepare p as select 1"):
        with pytest.raises(psycopg2.ProgrammingError, match="changed the session"):
            mux.execute(statement)

    assert pid(mux) != before


def test_few_connections_serve_many_tasks(make, spawn):
    mux = make(max_size=2)
    pid(mux)

    jobs = [spawn(pid, mux) for _ in range(50)]

    assert len({job.result() for job in jobs}) <= 2


def test_slow_statement_holds_nobody_up(make, spawn, gate):
    mux = make(max_size=2)

    slow = spawn(mux.execute, gate.sql)
    jobs = [spawn(mux.execute, "select %s", (n,)) for n in range(10)]
    answers = [job.result().fetchone()[0] for job in jobs]

    assert answers == list(range(10))
    assert not slow.ended
    gate.open()
    slow.result()


def test_text_that_was_quick_and_is_slow_gets_nothing_more_behind_it(make, spawn, gate):
    """What was sent before it was overdue waits for it: nobody can take that back."""
    mux, jobs = make(max_size=2), []
    query = f"select {gate.function}(%s)"
    for _ in range(5):
        mux.execute(query, (0,))

    slow = spawn(mux.execute, query, (gate.key,))
    gate.wait_for()

    def other_ended():
        jobs.append(spawn(mux.execute, "select 1"))
        return any(job.ended for job in jobs)

    until(other_ended, "another connection")

    assert not slow.ended
    gate.open()
    assert all(job.result().fetchone() == (1,) for job in jobs)


def test_statement_that_cannot_be_sent_in_time_is_refused(make, spawn, gate):
    mux = make(max_size=1, timeout=0.2)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()

    with pytest.raises(PoolTimeout, match=r"not sent in 0\.2 s"):
        mux.execute("select 1")

    gate.open()
    slow.result()
    assert mux.execute("select 1").fetchone() == (1,)


def test_too_many_are_refused(make, spawn, gate):
    mux = make(max_size=1, max_waiting=3)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()

    jobs = [spawn(mux.execute, "select 1") for _ in range(5)]
    until(lambda: sum(job.ended for job in jobs) == 2, "two refused")
    gate.open()
    slow.result()

    errors = [job.join().error for job in jobs]
    assert sum(isinstance(error, TooManyRequests) for error in errors) == 2
    assert errors.count(None) == 3


def test_max_in_flight_limits_a_connection(make, spawn):
    mux = make(max_size=1, max_in_flight=2)

    jobs = [spawn(mux.execute, "select %s", (n,)) for n in range(50)]

    assert [job.result().fetchone()[0] for job in jobs] == list(range(50))


def test_no_server_is_an_error_in_time(make):
    mux = make(NOWHERE, timeout=0.3)

    with pytest.raises(PoolTimeout) as caught:
        mux.execute("select 1")

    assert isinstance(caught.value.__cause__, psycopg2.OperationalError)


def test_closed_multiplexer_refuses(make, spawn, gate):
    mux = make(max_size=1)
    slow = spawn(mux.execute, gate.sql)
    gate.wait_for()
    waiting = spawn(mux.execute, "select 1")

    closing = spawn(mux.close, 5.0)
    assert isinstance(waiting.join().error, PoolClosed)
    gate.open()
    closing.result()

    assert slow.result().rowcount == 1
    with pytest.raises(PoolClosed):
        mux.execute("select 1")


def test_close_cancels_what_runs(make, spawn):
    mux = make()
    slow = spawn(mux.execute, SLOW)
    until(lambda: mux.get_stats().get("pool_size"), "a connection")

    mux.close(0)

    assert isinstance(slow.join().error, psycopg2.Error)


def test_idle_connections_go_back_to_the_pool(make):
    mux = make(max_size=1)
    mux.execute("select 1")

    until(lambda: mux.get_stats()["pool_available"] == 1, "the connection is back")

    assert mux.execute("select 1").fetchone() == (1,)


def test_large_results_arrive(mux):
    assert (
        len(mux.execute("select repeat('x', 1000) from generate_series(1, 20000)").fetchall())
        == 20000
    )
    assert mux.execute("select length(%s)", ("x" * 20_000_000,)).fetchone() == (20_000_000,)


def test_notices_do_not_pile_up(mux, monkeypatch):
    monkeypatch.setattr("greenpg.multiplexer._line.COUNTS", 10)

    for _ in range(25):
        mux.execute("do $$begin raise notice 'n'; end$$")

    assert mux.execute("select 1").fetchone() == (1,)


def test_deadline_ends_the_wait_and_the_statement(mux, spawn):
    with pytest.raises(DeadlineExceeded), mux.deadline(0.1):
        mux.execute(SLOW)

    assert mux.execute("select 1").fetchone() == (1,)


def test_default_backends_multiplexer_is_greenpgs():
    assert greenpg.Multiplexer is not None
