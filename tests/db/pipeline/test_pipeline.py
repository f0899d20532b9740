"""Pipeline mode: statements are queued, and each result is read on demand."""

# ruff: noqa: PT012 - an error raised at a block's end requires the block

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from math import inf

import psycopg2
import psycopg2.extensions as ext
import pytest

import greenpg
from greenpg._protocol.libpq import libpq
from greenpg.backend import current
from greenpg.errors import InFailedSqlTransaction, PipelineAborted
from greenpg_conformance.toolkit.memory import resident

BAD = "select 1 / 0"


def one(conn, query="select 1", args=None):
    cur = conn.cursor()
    cur.execute(query, args)
    return cur.fetchone()[0]


# Results


def test_results_are_read_in_any_order(conn):
    with conn.pipeline() as p:
        results = [p.execute("select %s", (n,)) for n in range(10)]

        assert results[7].fetchone() == (7,)
        assert [result.fetchall() for result in results[:7]] == [[(n,)] for n in range(7)]
    assert results[9].fetchone() == (9,)


def test_many_statements_are_not_mixed_up(conn):
    with conn.pipeline() as p:
        results = [p.execute("select %s, repeat('x', %s)", (n, n)) for n in range(2000)]

    assert all(result.fetchone() == (n, "x" * n) for n, result in enumerate(results))


def test_result_has_a_cursors_attributes(conn, create):
    table = create("(id int)")
    with conn.pipeline() as p:
        inserted = p.execute(f"insert into {table} select generate_series(1, 5)")
        found = p.execute(f"select id as number, 'x' as word from {table}")
        nothing = p.execute(f"select 1 from {table} where false")
        changed = p.execute(f"update {table} set id = id + 1 where id > 2 returning id")
        setting = p.execute("set local work_mem = '1MB'")

    assert (inserted.rowcount, inserted.statusmessage, inserted.description) == (
        5, "INSERT 0 5", None,
    )  # fmt: skip
    assert [column.name for column in found.description] == ["number", "word"]
    assert found.description[0].type_code == 23
    assert (found.rowcount, found.statusmessage) == (5, "SELECT 5")
    assert (nothing.fetchall(), nothing.rowcount, len(nothing.description)) == ([], 0, 1)
    assert (changed.rowcount, changed.fetchall()) == (3, [(4,), (5,), (6,)])
    assert (setting.statusmessage, setting.rowcount) == ("SET", -1)


def test_rows_are_fetched_as_from_a_cursor(conn):
    with conn.pipeline() as p:
        result = p.execute("select generate_series(1, 9)")

    assert result.fetchone() == (1,)
    assert result.fetchmany() == [(2,)]
    assert result.fetchmany(2) == [(3,), (4,)]
    assert list(result)[:2] == [(5,), (6,)]
    assert (result.fetchall(), result.fetchone()) == ([], None)


def test_values_are_cast_as_on_a_cursor(conn):
    query = (
        "select 1, 1.5, 1.5::numeric, true, 'it''s', '\\x00ff'::bytea, null, array[1, 2],"
        " date '2020-01-02', timestamptz '2020-01-02 03:04+05', interval '1 day 2 s',"
        " '{\"a\": 1}'::json"
    )
    cur = conn.cursor()
    cur.execute(query)
    expected = cur.fetchone()

    with conn.pipeline() as p:
        found = p.execute(query).fetchone()

    assert [bytes(v) if isinstance(v, memoryview) else v for v in found] == [
        bytes(v) if isinstance(v, memoryview) else v for v in expected
    ]
    assert found[1] == Decimal("1.5")
    assert found[8] == dt.date(2020, 1, 2)


def test_typecasters_of_the_connection_count(conn):
    ext.register_type(ext.new_type((23,), "LOUD", lambda value, _: [value]), conn)

    with conn.pipeline() as p:
        assert p.execute("select 5").fetchone() == (["5"],)


@pytest.mark.parametrize("count", [3, 5000])
def test_typecaster_that_raises_harms_only_its_fetch(conn, count):
    ext.register_type(ext.new_type((23,), "BROKEN", lambda n, _: 6 // (2 - int(n or 0))), conn)

    with conn.pipeline() as p:
        before = p.execute("select 'before'")
        broken = p.execute("select generate_series(1, %s)", (count,))
        after = p.execute("select 'after'")

    assert (before.fetchall(), after.fetchall()) == ([("before",)], [("after",)])
    assert broken.rowcount == count
    assert broken.fetchone() == (6,)
    for fetch in (broken.fetchone, broken.fetchall):
        with pytest.raises(ZeroDivisionError):
            fetch()


@pytest.mark.parametrize("fetch", [True, False])
def test_large_results_are_freed(conn, fetch):
    size, rows = 8000, 1500  # enough rows to be made late, and 12 MB of them

    def run():
        with conn.pipeline() as p:
            result = p.execute(f"select repeat('x', {size}) from generate_series(1, {rows})")
            p.sync()
            assert result.rowcount == rows
        return len(result.fetchall()) if fetch else 0

    run()
    before = resident()
    for _ in range(5):
        run()

    assert resident() - before < 16 << 20


def test_large_result_is_fetched_as_a_small_one(conn):
    with conn.pipeline() as p:
        result = p.execute("select n, n from generate_series(1, 3000) n")

    assert result.fetchone() == (1, 1)
    assert result.fetchmany(-1) == result.fetchmany(0) == []
    assert result.fetchmany(1500) == [(n, n) for n in range(2, 1502)]
    assert next(iter(result)) == (1502, 1502)
    assert result.fetchall() == [(n, n) for n in range(1503, 3001)]
    assert result.fetchall() == []


def test_statement_without_rows_has_none_to_fetch(conn):
    with conn.pipeline() as p:
        result = p.execute("set local work_mem = '1MB'")

        with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
            result.fetchall()


def test_arguments_are_psycopg2s(conn):
    with conn.pipeline() as p:
        named = p.execute("select %(a)s, %(b)s", {"a": "100 %", "b": [1, None]})
        composed = p.execute(greenpg.sql.SQL("select {}").format(greenpg.sql.Literal("it's")))
        plain = p.execute("select '100 %'")

    assert named.fetchone() == ("100 %", [1, None])
    assert composed.fetchone() == ("it's",)
    assert plain.fetchone() == ("100 %",)


def test_arguments_that_do_not_fit_queue_nothing(conn):
    with conn.pipeline() as p:
        with pytest.raises((TypeError, IndexError)):
            p.execute("select %s, %s", (1,))

        assert p.execute("select 1").fetchone() == (1,)


# Errors


def test_error_aborts_what_follows_up_to_the_sync(auto):
    with auto.pipeline() as p:
        before, wrong, after = p.execute("select 1"), p.execute(BAD), p.execute("select 2")
        p.sync()
        later = p.execute("select 3")

        assert before.fetchone() == (1,)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            wrong.fetchone()
        with pytest.raises(PipelineAborted):
            after.fetchone()
        assert later.fetchone() == (3,)


def test_error_is_raised_each_time_it_is_read(auto):
    with auto.pipeline() as p:
        wrong = p.execute(BAD)

        for read in (wrong.fetchall, lambda: wrong.rowcount, lambda: wrong.description):
            with pytest.raises(psycopg2.errors.DivisionByZero):
                read()


def test_error_is_psycopg2s(conn, create):
    table = create("(id int constraint positive check (id > 0))")
    with conn.pipeline() as p:
        wrong = p.execute(f"insert into {table} values (-1)")

        with pytest.raises(psycopg2.errors.CheckViolation, match="positive") as caught:
            wrong.fetchone()

    err = caught.value
    assert err.pgcode == "23514"
    assert str(err.pgerror).startswith("ERROR:  new row")
    assert err.diag.constraint_name == "positive"
    assert err.diag.severity == "ERROR"


def test_unread_error_is_raised_at_the_blocks_end(auto):
    with pytest.raises(psycopg2.errors.DivisionByZero), auto.pipeline() as p:
        p.execute("select 1")
        p.execute(BAD)
        p.execute("select 2")

    assert one(auto) == 1


def test_blocks_own_exception_goes_first(auto):
    with pytest.raises(LookupError), auto.pipeline() as p:
        p.execute(BAD)
        raise LookupError

    assert one(auto) == 1


def test_commit_that_fails_at_the_sync_is_raised(auto, create):
    table = create("(id int unique deferrable initially deferred)")

    with pytest.raises(psycopg2.errors.UniqueViolation), auto.pipeline() as p:
        p.execute(f"insert into {table} values (1), (1)")
        p.sync()
        p.execute(f"insert into {table} values (2)")

    assert one(auto, f"select array_agg(id) from {table}") == [2]


def test_commit_that_fails_at_the_end_is_raised(auto, create):
    table = create("(id int unique deferrable initially deferred)")

    with pytest.raises(psycopg2.errors.UniqueViolation), auto.pipeline() as p:
        p.execute(f"insert into {table} values (1), (1)")

    assert one(auto, f"select count(*) from {table}") == 0


# The connection meanwhile


@pytest.mark.parametrize("use", ["execute", "commit", "rollback", "pipeline", "lobject"])
def test_connection_is_the_blocks_alone(conn, use):
    uses = {
        "execute": lambda: one(conn),
        "commit": conn.commit,
        "rollback": conn.rollback,
        "pipeline": lambda: conn.pipeline().__enter__(),
        "lobject": conn.lobject,
    }

    with conn.pipeline() as p:
        with pytest.raises(psycopg2.ProgrammingError, match=r"pipeline\(\) block"):
            uses[use]()
        assert p.execute("select 1").fetchone() == (1,)
    assert one(conn) == 1


def test_other_tasks_wait_for_the_end(conn, spawn):
    order = []

    def intrude():
        one(conn)
        order.append("other")

    with conn.pipeline() as p:
        job = spawn(intrude)
        current().sleep(0.05)
        p.execute("select 1").fetchone()
        order.append("block")
    job.join()

    assert order == ["block", "other"]


def test_nothing_can_be_queued_outside(conn):
    pipeline = conn.pipeline()
    with pytest.raises(psycopg2.ProgrammingError, match="not open"):
        pipeline.execute("select 1")
    with pipeline as p:
        pass

    with pytest.raises(psycopg2.ProgrammingError, match="not open"):
        p.execute("select 1")
    with pytest.raises(psycopg2.ProgrammingError, match="not open"):
        p.sync()


def test_closed_connection_has_no_pipeline(conn):
    conn.close()

    with pytest.raises(psycopg2.InterfaceError):
        conn.pipeline().__enter__()


def test_old_libpq_is_named(conn, monkeypatch):
    monkeypatch.setattr(type(libpq), "has", lambda *_: False)

    with pytest.raises(psycopg2.NotSupportedError, match="PQenterPipelineMode"):
        conn.pipeline().__enter__()

    monkeypatch.undo()
    assert one(conn) == 1


# Ends half-way


def test_deadline_ends_the_block(auto, gate):
    with pytest.raises(greenpg.DeadlineExceeded), auto.deadline(0.1), auto.pipeline() as p:
        p.execute(gate.sql).fetchone()

    gate.wait_for(0)
    assert one(auto) == 1


def test_deadline_that_begins_in_the_block_ends_it(auto, gate):
    with pytest.raises(greenpg.DeadlineExceeded), auto.pipeline() as p:
        with auto.deadline(10):
            assert p.execute("select 1").fetchone() == (1,)
        with auto.deadline(0.1):
            p.execute(gate.sql).fetchone()

    gate.wait_for(0)
    assert one(auto, "select 1") == 1


def test_deadline_that_has_ended_in_the_block_is_no_more(auto, monkeypatch):
    with auto.pipeline() as p:
        with auto.deadline(60):
            p.execute("select 1").fetchone()
        monkeypatch.setattr("greenpg._session.session.monotonic", lambda: inf)
        found = p.execute("select 2").fetchone()

    assert found == (2,)


def test_deadline_bounds_the_end_too(auto, gate):
    with pytest.raises(greenpg.DeadlineExceeded), auto.deadline(0.1), auto.pipeline() as p:
        p.execute(gate.sql)
        p.execute("select 1")

    gate.wait_for(0)
    assert one(auto) == 1


def test_interrupted_block_leaves_only_a_rollback(conn, gate, create):
    table = create("(id int)")
    with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.1), conn.pipeline() as p:
        p.execute(f"insert into {table} values (1)")
        p.execute(gate.sql).fetchone()

    with pytest.raises(InFailedSqlTransaction):
        conn.commit()
    conn.rollback()
    assert one(conn, f"select count(*) from {table}") == 0


@pytest.mark.green
def test_killed_task_leaves_the_connection_usable(auto, gate, spawn):
    def work():
        with auto.pipeline() as p:
            for _ in range(300):
                p.execute(gate.sql)
            p.execute("select 1").fetchone()

    job = spawn(work)
    gate.wait_for()

    job.kill()
    job.join()

    assert isinstance(job.error, current().exits)
    gate.wait_for(0)
    assert one(auto) == 1


def test_close_from_another_task_ends_the_wait(conn, gate, spawn):
    def work():
        with conn.pipeline() as p:
            p.execute(gate.sql).fetchone()

    job = spawn(work)
    gate.wait_for()

    conn.close()
    job.join()

    assert isinstance(job.error, psycopg2.InterfaceError)
    assert conn.closed
    gate.wait_for(0)


def test_lost_server_ends_the_block(conn, auto):
    pid = conn.info.backend_pid

    with pytest.raises(psycopg2.OperationalError), conn.pipeline() as p:
        p.execute("select 1").fetchone()
        one(auto, "select pg_terminate_backend(%s, 5000)", (pid,))
        p.execute("select 1").fetchone()

    assert conn.closed


def test_statements_larger_than_any_buffer_do_not_deadlock(conn):
    text = "x" * 500_000

    with conn.pipeline() as p:
        results = [p.execute("select %s", (text,)) for _ in range(20)]

    assert all(result.fetchone() == (text,) for result in results)
