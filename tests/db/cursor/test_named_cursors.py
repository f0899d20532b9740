"""Server-side cursors."""

from __future__ import annotations

import pytest
from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor

import greenpg
from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat

SERIES = "select generate_series(1, %s)"


@pytest.fixture
def named(conn):
    """A named cursor over the numbers 1 to 10."""
    cur = conn.cursor("numbers")
    cur.execute(SERIES, (10,))
    return cur


def numbers(rows):
    return [row[0] for row in rows]


def test_fetches_go_through_the_rows_in_order(named):
    first, some, rest = named.fetchone(), named.fetchmany(3), named.fetchall()

    assert first == (1,)
    assert numbers(some) == [2, 3, 4]
    assert numbers(rest) == [5, 6, 7, 8, 9, 10]
    assert named.fetchone() is None


def test_fetchmany_takes_arraysize_by_default(named):
    named.arraysize = 4

    assert numbers(named.fetchmany()) == [1, 2, 3, 4]
    assert numbers(named.fetchmany(size=2)) == [5, 6]


@pytest.mark.parametrize("itersize", [1, 3, 10, 2000])
def test_iteration_gives_every_row_whatever_the_itersize(conn, itersize):
    cur = conn.cursor("numbers")
    cur.itersize = itersize
    cur.execute(SERIES, (10,))

    assert numbers(cur) == list(range(1, 11))


def test_two_tasks_share_the_rows_of_a_cursor(named, spawn):
    jobs = [spawn(lambda: numbers(named.fetchmany(5))) for _ in range(2)]

    assert sorted(jobs[0].result() + jobs[1].result()) == list(range(1, 11))


def test_iteration_and_queries_of_other_tasks_alternate(conn, spawn):
    cur = conn.cursor("numbers")
    cur.itersize = 2
    cur.execute(SERIES, (20,))

    def ask(number):
        other = conn.cursor()
        other.execute("select %s", (number,))
        return other.fetchone()[0]

    jobs = [spawn(ask, number) for number in range(5)]
    found = numbers(cur)

    assert found == list(range(1, 21))
    assert [job.result() for job in jobs] == list(range(5))


def test_fetch_is_green(conn, spawn, gate):
    cur = conn.cursor("slow")
    cur.execute(f"select 1, ({gate.sql})::text")

    with heartbeat(current()):
        job = spawn(cur.fetchone)
        gate.wait_for()
        gate.open()

    assert job.result() == (1, "")


def test_description_comes_with_the_first_fetch(named):
    before = named.description

    named.fetchone()

    assert before is None
    assert named.description[0].name == "generate_series"
    assert named.name == "numbers"


def test_scroll_moves_relatively_and_absolutely(conn):
    cur = conn.cursor("numbers", scrollable=True)
    cur.execute(SERIES, (10,))

    cur.scroll(3)
    forward = cur.fetchone()
    cur.scroll(-2)
    back = cur.fetchone()
    cur.scroll(8, mode="absolute")
    absolute = cur.fetchone()

    assert (forward, back, absolute) == ((4,), (3,), (9,))


def test_cursor_that_may_not_scroll_refuses_to_go_back(db, conn):
    cur = conn.cursor("numbers", scrollable=False)
    cur.execute(SERIES, (10,))
    cur.fetchmany(5)

    with pytest.raises(db.OperationalError, match="can only scan forward"):
        cur.scroll(-2)

    assert cur.scrollable is False


def test_cursor_with_hold_outlives_its_transaction(conn):
    cur = conn.cursor("numbers", withhold=True)
    cur.execute(SERIES, (4,))
    first = cur.fetchone()

    conn.commit()

    assert first == (1,)
    assert numbers(cur) == [2, 3, 4]
    assert cur.withhold
    cur.close()


def test_cursor_without_hold_ends_with_its_transaction(db, conn, named):
    conn.commit()

    with pytest.raises(db.ProgrammingError, match="isn't valid anymore"):
        named.fetchone()


def test_cursor_needs_a_transaction_or_hold(db, auto):
    with pytest.raises(db.ProgrammingError, match="can't use a named cursor outside of trans"):
        auto.cursor("numbers").execute("select 1")

    held = auto.cursor("held", withhold=True)
    held.execute(SERIES, (3,))
    assert numbers(held) == [1, 2, 3]
    held.close()


def test_close_closes_on_the_server(conn, named):
    named.close()

    cur = conn.cursor()
    cur.execute("select count(*) from pg_cursors")
    assert cur.fetchone() == (0,)
    assert named.closed
    named.close()


def test_with_block_closes_on_the_server(conn):
    with conn.cursor("numbers") as cur:
        cur.execute(SERIES, (3,))
        found = numbers(cur)

    cur = conn.cursor()
    cur.execute("select count(*) from pg_cursors")
    assert found == [1, 2, 3]
    assert cur.fetchone() == (0,)


def test_close_after_a_failed_transaction_is_quiet(db, conn, named):
    with pytest.raises(db.errors.DivisionByZero):
        conn.cursor().execute("select 1/0")

    named.close()

    assert named.closed


def test_second_execute_is_refused(db, named):
    with pytest.raises(db.ProgrammingError, match=r"can't call \.execute"):
        named.execute("select 1")


def test_executemany_and_callproc_are_refused(db, conn):
    cur = conn.cursor("numbers")

    with pytest.raises(db.ProgrammingError, match=r"can't call \.executemany"):
        cur.executemany("select %s", [(1,)])
    with pytest.raises(db.ProgrammingError, match=r"can't call \.callproc"):
        cur.callproc("now")


def test_name_is_quoted(conn):
    cur = conn.cursor('say "hello"')

    cur.execute("select 1")

    assert cur.fetchall() == [(1,)]


def test_named_cursor_is_a_green_cursor(conn):
    cur = conn.cursor("numbers")

    assert isinstance(cur, greenpg.Cursor)
    assert cur.connection is conn


def state_of(cur):
    return cur.rowcount, cur.rownumber, cur.statusmessage


@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 2001, 5000, 12_345])
def test_large_result_comes_whole(conn, count):
    cur = conn.cursor("numbers")
    cur.execute(SERIES, (count,))

    rows = cur.fetchall()

    assert rows == [(n + 1,) for n in range(count)]
    assert state_of(cur) == (count, count, f"FETCH {count}")
    assert (cur.fetchall(), state_of(cur)) == ([], (0, 0, "FETCH 0"))


@pytest.mark.parametrize("size", [1, 2000, 2001, 5000, 20_000])
def test_fetchmany_is_one_statement(conn, size):
    cur = conn.cursor("numbers")
    cur.execute(SERIES, (9000,))
    least = min(size, 9000)

    rows = cur.fetchmany(size)

    assert rows == [(n + 1,) for n in range(least)]
    assert state_of(cur) == (least, least, f"FETCH {least}")
    assert cur.itersize == 2000


@pytest.mark.parametrize("fetch", [lambda cur: cur.fetchmany(6000), lambda cur: cur.fetchall()])
def test_fetch_goes_on_behind_the_rows_that_an_iteration_has_fetched(conn, fetch):
    """As in psycopg2, whose fetches are statements."""
    cur = conn.cursor("numbers")
    cur.itersize = 4
    cur.execute(SERIES, (9000,))

    first, rows = next(cur), fetch(cur)

    assert (first, rows[0]) == ((1,), (5,))
    assert (cur.rowcount, cur.itersize) == (len(rows), 4)
    assert next(cur, None) == (None if len(rows) == 8996 else (6005,))


@pytest.mark.parametrize("kind", [DictCursor, RealDictCursor, NamedTupleCursor])
def test_large_result_is_of_the_cursors_kind(conn, kind):
    cur = conn.cursor("numbers", cursor_factory=kind)
    cur.execute("select generate_series(1, 5000) as n")

    rows = cur.fetchall()

    assert {type(row) for row in rows} == {type(rows[0])}
    values = [row.n if kind is NamedTupleCursor else row["n"] for row in rows]
    assert values == list(range(1, 5001))


def test_row_factory_makes_every_row(conn):
    cur = conn.cursor("numbers")
    cur.row_factory = lambda cur: [None]
    cur.execute(SERIES, (9000,))

    rows = [cur.fetchone(), *cur.fetchmany(3), next(cur), next(cur)]

    assert rows == [[1], [2], [3], [4], [5], [6]]
    assert cur.fetchall()[:2] == [[2005], [2006]]


def test_rows_without_columns(conn):
    cur = conn.cursor("empty")
    cur.execute("select from generate_series(1, 3)")

    assert (cur.fetchone(), cur.fetchall()) == ((), [(), ()])


@pytest.mark.green
def test_other_tasks_run_while_a_large_result_is_built(conn, monkeypatch):
    cur = conn.cursor("numbers")
    cur.execute(SERIES, (100_000,))
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)
    pauses: list[int] = []
    monkeypatch.setattr(
        conn._greenpg_state.backend, "pause", lambda: pauses.append(1), raising=False
    )

    rows = cur.fetchall()

    assert (len(rows), len(pauses)) == (100_000, 50)
