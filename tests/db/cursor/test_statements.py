"""Statements of client-side cursors."""

from __future__ import annotations

from typing import Any

import pytest

import greenpg


@pytest.fixture
def numbers(conn):
    """A temporary table `numbers (n)` and a cursor on it."""
    cur = conn.cursor()
    cur.execute("create temp table numbers (n int unique)")
    return cur


def stored(cur):
    cur.execute("select n from numbers order by n")
    return [row[0] for row in cur.fetchall()]


def test_mogrify_binds_without_a_round_trip(conn):
    cur = conn.cursor()

    positional = cur.mogrify("select %s, %s, 5 %% 3", (1, "it's"))
    by_name = cur.mogrify("select %(a)s, %(a)s, %(b)s", {"a": None, "b": [1]})
    plain = cur.mogrify("select 5 % 3")

    assert positional == b"select 1, 'it''s', 5 % 3"
    assert by_name == b"select NULL, NULL, ARRAY[1]"
    assert plain == b"select 5 % 3"
    assert conn.info.transaction_status == 0


def test_wrong_number_of_arguments_is_found_before_sending(conn):
    cur = conn.cursor()

    with pytest.raises(IndexError):
        cur.execute("select %s, %s", (1,))
    with pytest.raises(TypeError):
        cur.execute("select %s", (1, 2))

    assert conn.info.transaction_status == 0


def test_facts_of_a_statement_are_kept(numbers):
    numbers.execute("insert into numbers values (1), (2)")

    assert numbers.rowcount == 2
    assert numbers.statusmessage == "INSERT 0 2"
    assert numbers.query == b"insert into numbers values (1), (2)"
    assert numbers.description is None


def test_description_names_the_columns(conn):
    cur = conn.cursor()

    cur.execute("select 1 as one, 'x'::varchar(5) as two")

    assert [column.name for column in cur.description] == ["one", "two"]
    assert cur.description[1].internal_size == 5
    assert cur.rownumber == 0


def test_rows_are_fetched_in_every_way(conn):
    cur = conn.cursor()
    cur.execute("select generate_series(1, 10)")

    first, two, third = cur.fetchone(), cur.fetchmany(2), next(cur)
    cur.scroll(1)
    rest = list(cur)

    assert (first, two, third) == ((1,), [(2,), (3,)], (4,))
    assert rest == [(n,) for n in range(6, 11)]
    assert cur.fetchone() is None


def test_fetch_without_a_result_is_a_programming_error(db, conn):
    cur = conn.cursor()
    cur.execute("set search_path to public")

    with pytest.raises(db.ProgrammingError, match="no results to fetch"):
        cur.fetchone()


def test_large_result_comes_whole(conn):
    cur = conn.cursor()
    cur.execute("select generate_series(1, 54321)")

    some, rest = cur.fetchmany(12_000), cur.fetchall()

    assert [row[0] for row in some + rest] == list(range(1, 54_322))


@pytest.mark.parametrize("kind", ["DictCursor", "RealDictCursor", "NamedTupleCursor"])
def test_large_result_has_rows_of_the_cursors_kind(db, conn, kind):
    cur = conn.cursor(cursor_factory=getattr(db.extras, kind))
    cur.execute("select n as num from generate_series(1, 5000) as n")

    rows = cur.fetchall()

    last = rows[-1].num if kind == "NamedTupleCursor" else rows[-1]["num"]
    assert (len(rows), last) == (5000, 5000)


def test_error_has_everything_that_the_server_says(db, numbers):
    numbers.execute("insert into numbers values (1)")

    with pytest.raises(db.errors.UniqueViolation) as caught:
        numbers.execute("insert into numbers values (1)")

    assert isinstance(caught.value, db.IntegrityError)
    assert caught.value.pgcode == db.errorcodes.UNIQUE_VIOLATION
    assert caught.value.diag.constraint_name == "numbers_n_key"
    assert caught.value.pgerror.startswith("ERROR:  duplicate key")
    assert caught.value.cursor is numbers


def test_executemany_runs_once_for_each_set(numbers):
    numbers.executemany("insert into numbers values (%s)", ((n,) for n in range(5)))
    numbers.executemany("insert into numbers values (%(n)s)", [{"n": 10}, {"n": 11}])

    assert stored(numbers) == [0, 1, 2, 3, 4, 10, 11]


def test_executemany_of_nothing_does_nothing(numbers):
    numbers.executemany("insert into numbers values (%s)", [])

    assert stored(numbers) == []


@pytest.mark.parametrize("itersize", [1, 7, 2000])
def test_executemany_reads_from_a_named_cursor_of_its_connection(conn, numbers, itersize):
    source = conn.cursor("source")
    source.itersize = itersize
    source.execute("select generate_series(1, 50)")

    numbers.executemany("insert into numbers values (%s)", source)

    assert stored(numbers) == list(range(1, 51))


def test_executemany_reads_from_a_generator_that_queries_its_connection(conn, numbers):
    def rows():
        for n in range(5):
            with conn.cursor() as other:
                other.execute("select %s * 10, count(*) from numbers", (n,))
                tens, before = other.fetchone()
            assert before == n
            yield (tens,)

    numbers.executemany("insert into numbers values (%s)", rows())

    assert stored(numbers) == [0, 10, 20, 30, 40]


def test_rows_that_query_the_connection_keep_other_tasks_out(conn, numbers):
    lock, held = greenpg.ConnectionLock(conn), []

    def rows():
        for number in range(2):
            conn.cursor().execute("select 1")
            held.append(lock.locked())
            yield (number,)

    numbers.executemany("insert into numbers values (%s)", rows())

    assert held == [True, True]
    assert not lock.locked()


def test_error_of_the_rows_propagates_from_executemany(conn, numbers):
    def rows():
        yield (1,)
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"):
        numbers.executemany("insert into numbers values (%s)", rows())

    assert stored(numbers) == [1]


def test_error_of_a_statement_closes_the_rows_of_executemany(db, conn, numbers):
    ended = []

    def rows():
        try:
            yield (1,)
            yield (1,)
            yield (2,)
        finally:
            ended.append(True)

    with pytest.raises(db.errors.UniqueViolation):
        numbers.executemany("insert into numbers values (%s)", rows())

    assert ended == [True]
    conn.rollback()


def test_executemany_of_something_that_cannot_be_iterated_is_a_type_error(conn, numbers):
    with pytest.raises(TypeError):
        numbers.executemany("insert into numbers values (%s)", 5)

    assert stored(numbers) == []


def test_other_tasks_wait_until_executemany_is_over(conn, numbers, spawn):
    seen = []

    def look():
        cur = conn.cursor()
        cur.execute("select count(*) from numbers")
        seen.append(cur.fetchone()[0])

    def rows():
        job = spawn(look)
        for n in range(5):
            yield (n,)
        jobs.append(job)

    jobs: list[Any] = []
    numbers.executemany("insert into numbers values (%s)", rows())
    jobs[0].result()

    assert seen == [5]


def test_callproc_calls_with_what_it_is_given(conn):
    cur = conn.cursor()

    given = cur.callproc("concat_ws", ["-", "a", "b"])
    listed = cur.fetchone()
    cur.callproc("pg_backend_pid")
    bare = cur.fetchone()
    cur.callproc("make_date", {"year": 2005, "month": 11, "day": 18})
    by_name = cur.fetchone()[0].isoformat()

    assert given == ["-", "a", "b"]
    assert listed == ("a-b",)
    assert bare == (conn.info.backend_pid,)
    assert by_name == "2005-11-18"


def test_callproc_runs_functions_of_the_user(conn, create):
    name = create("(a int, b int) returns int language sql as 'select a * b'", kind="function")
    cur = conn.cursor()

    cur.callproc(name, (6, 7))

    assert cur.fetchone() == (42,)


def test_several_statements_give_the_last_result(conn):
    cur = conn.cursor()

    cur.execute("select 1; select 2")

    assert cur.fetchall() == [(2,)]


def test_execute_values_and_execute_batch_run(db, numbers):
    db.extras.execute_batch(numbers, "insert into numbers values (%s)", [(1,), (2,)], page_size=1)
    back = db.extras.execute_values(
        numbers, "insert into numbers values %s returning n", [(3,), (4,)], page_size=1, fetch=True
    )

    assert back == [(3,), (4,)]
    assert stored(numbers) == [1, 2, 3, 4]


def test_cursors_of_one_connection_keep_their_results_apart(conn):
    one, two = conn.cursor(), conn.cursor()
    one.execute("select generate_series(1, 3)")

    two.execute("select 'two'")

    assert one.fetchall() == [(1,), (2,), (3,)]
    assert two.fetchone() == ("two",)


def test_closed_cursor_says_so(db, conn):
    cur = conn.cursor()
    cur.close()

    with pytest.raises(db.InterfaceError, match="cursor already closed"):
        cur.execute("select 1")
    with pytest.raises(db.InterfaceError, match="cursor already closed"):
        cur.executemany("select %s", [(1,)])


def test_large_query_arrives_whole(conn):
    cur = conn.cursor()

    cur.execute("select length(%s)", ("x" * 20_000_000,))

    assert cur.fetchone() == (20_000_000,)
