"""The storm's operations that psycopg 3 alone has, or has in its own way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import IsolationLevel

from greenpg_conformance.harness.tests import PSYCOPG_NAME

from . import table

if TYPE_CHECKING:
    from .fixture import Fixture
    from .table import Steps

ROWS: Final = 2000
FEW: Final = 50
PAUSE: Final = 0.0005
LEVELS: Final = (IsolationLevel.SERIALIZABLE, IsolationLevel.READ_COMMITTED, None)
_numbers = itertools.count(1)
operation: Final = partial(table.operation, drivers=(PSYCOPG_NAME,))


def _pause(s: Fixture) -> None:
    """Wait where interrupts are counted, as a source on the network does."""
    s.backend.event().wait(PAUSE)


def _leave_single_row_mode(s: Fixture) -> None:
    """Run a statement: libpq's mode of a stream goes over to a pipeline that follows at once."""
    s.echo(nap=0)


# Statements


@operation()
def prepared(s: Fixture) -> Steps:
    query = f"select %s::int, pg_sleep(%s) /* {next(_numbers) % 5} */"
    yield
    cur = s.conn.execute(query, (7, s.nap()), prepare=True)
    assert cur.fetchall() == [(7, "")]


@operation(loose=True)
def prepared_repeatedly(s: Fixture) -> Steps:
    yield
    for number in range(8):
        query = f"select {number}, %s::int"
        assert s.conn.execute(query, (number,), prepare=True).fetchone() == (number, number)


@operation()
def client_cursor(s: Fixture) -> Steps:
    s.conn.cursor_factory = psycopg.ClientCursor
    cur = s.conn.cursor()
    s.conn.cursor_factory = psycopg.Cursor
    yield
    cur.execute("select %s, pg_sleep(%s)", (7, s.nap()))
    assert cur.fetchall() == [(7, "")]


@operation()
def client_cursor_made_directly(s: Fixture) -> Steps:
    cur = psycopg.ClientCursor(s.conn)
    yield
    cur.execute("select %s; select pg_sleep(%s)", (7, s.nap()))
    assert (cur.fetchall(), cur.nextset(), cur.fetchall()) == ([(7,)], True, [("",)])


@operation()
def raw_cursor(s: Fixture) -> Steps:
    cur = psycopg.RawCursor(s.conn)
    yield
    cur.execute("select $1::int, pg_sleep($2)", (7, s.nap()))
    assert cur.fetchall() == [(7, "")]


@operation(loose=True)
def raw_server_cursor(s: Fixture) -> Steps:
    cur = psycopg.RawServerCursor(s.conn, f"raw_{next(_numbers)}", withhold=s.autocommit)
    yield
    with cur:
        cur.execute("select i from generate_series(1, $1) i", (FEW,))
        cur.itersize = 20
        assert [row[0] for row in cur] == list(range(1, FEW + 1))


@operation()
def executemany(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(FEW)], s.autocommit
    _leave_single_row_mode(s)
    yield
    with s.ledger.inserting(rows, auto):
        cur = s.conn.cursor()
        cur.executemany(s.insert, [(row, 0) for row in rows])
        assert cur.rowcount == FEW


@operation()
def executemany_returning(s: Fixture) -> Steps:
    cur = s.conn.cursor()
    naps = [(number, min(s.nap(), 1.0) if number == 3 else 0) for number in range(10)]
    _leave_single_row_mode(s)
    yield
    cur.executemany("select %s, pg_sleep(%s)", naps, returning=True)
    found = [cur.fetchall()]
    while cur.nextset():
        found.append(cur.fetchall())
    assert found == [[(number, "")] for number in range(10)]


@operation(lax=True, loose=True)
def executemany_of_slow_rows(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(10)], s.autocommit
    _leave_single_row_mode(s)
    yield
    with s.ledger.inserting(rows, auto):
        s.conn.cursor().executemany(s.insert, _slowly(s, [(row, 0) for row in rows]))


def _slowly(s: Fixture, items: list[Any]) -> Iterator[Any]:
    for item in items:
        _pause(s)
        yield item


@operation(loose=True)
def stream(s: Fixture) -> Steps:
    yield
    rows = s.conn.cursor().stream("select i, pg_sleep(%s) from generate_series(1, 20) i", (0.001,))
    assert [row[0] for row in rows] == list(range(1, 21))


@operation(loose=True)
def stream_of_many(s: Fixture) -> Steps:
    yield
    rows = s.conn.cursor().stream("select i from generate_series(1, %s) i", (ROWS,))
    assert [row[0] for row in rows] == list(range(1, ROWS + 1))


@operation(autocommit=True, loose=True)
def stream_given_up(s: Fixture) -> Steps:
    yield
    rows = s.conn.cursor().stream("select i from generate_series(1, 100000) i")
    assert next(rows) == (1,)
    rows.close()


@operation(fresh=True, loose=True)
def setters(s: Fixture) -> Steps:
    yield
    s.conn.isolation_level = s.rng.choice(LEVELS)
    s.conn.read_only = s.rng.choice((False, None))
    s.conn.deferrable = s.rng.choice((True, False, None))
    s.conn.autocommit = not s.conn.autocommit


@operation(autocommit=True, lax=True)
def cancel_safe(s: Fixture) -> Steps:
    yield
    s.conn.cancel_safe(timeout=5)


# Blocks


@operation(fresh=True, loose=True)
def transaction(s: Fixture) -> Steps:
    yield
    with s.conn.transaction():
        s.write(auto=False)
        s.write(nap=0, commit_nap=0.002, auto=False)
        s.ledger.committing()
    s.ledger.committed()


@operation(fresh=True, loose=True)
def nested_transactions(s: Fixture) -> Steps:
    yield
    with s.conn.transaction():
        s.write(nap=0, auto=False)
        with s.conn.transaction():
            s.write(auto=False)
            with s.conn.transaction("own_name"):
                s.write(nap=0, auto=False)
        s.echo(nap=0)
        s.ledger.committing()
    s.ledger.committed()


class _Undone(Exception):
    """Undoes a block."""


@operation(fresh=True, loose=True)
def transaction_undone(s: Fixture) -> Steps:
    yield
    try:
        with s.conn.transaction():
            s.write(auto=False)
            raise _Undone
    except _Undone:
        s.ledger.over()


@operation(autocommit=False, lax=True, loose=True)
def savepoint_block(s: Fixture) -> Steps:
    last = s.write(nap=0)
    yield
    try:
        with s.conn.transaction():
            s.write()
    except BaseException:
        s.ledger.undo_since(last + 1)
        raise


@operation(elsewhere=True, loose=True)
def with_connection(s: Fixture) -> Steps:
    yield
    with s.connected() as conn:
        s.echo(conn)


@operation(loose=True)
def pipeline(s: Fixture) -> Steps:
    _leave_single_row_mode(s)
    yield
    with s.conn.pipeline():
        found = [s.conn.execute("select %s", (number,)) for number in range(300)]
        s.conn.execute("select pg_sleep(%s)", (min(s.nap(), 1),))  # the end of the block waits
    assert [cur.fetchone() for cur in found] == [(number,) for number in range(300)]


@operation(loose=True)
def pipeline_that_is_synchronised(s: Fixture) -> Steps:
    _leave_single_row_mode(s)
    yield
    with s.conn.pipeline() as pipe:
        found = []
        for number in range(5):
            found.append(s.conn.execute("select %s", (number,), prepare=True))
            pipe.sync()
        assert [cur.fetchone() for cur in found] == [(number,) for number in range(5)]


@operation(loose=True)
def pipeline_of_inserts(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(FEW)], s.autocommit
    _leave_single_row_mode(s)
    yield
    with s.ledger.inserting(rows, auto), s.conn.pipeline():
        for row in rows:
            s.conn.execute(s.insert, (row, 0))


@operation(fresh=True, loose=True)
def transaction_in_a_pipeline(s: Fixture) -> Steps:
    rows = [s.row() for _ in range(5)]
    _leave_single_row_mode(s)
    s.rollback()
    yield
    with s.conn.pipeline():
        with s.conn.transaction():
            for row in rows:
                s.ledger.begin(row, autocommit=False)
                s.conn.execute(s.insert, (row, 0.002 * (row == rows[0])))
                s.ledger.acknowledge(row, autocommit=False)
            s.ledger.committing()
        s.ledger.committed()
        s.conn.execute("select 1")


@operation(fresh=True, loose=True)
def pipeline_in_a_transaction(s: Fixture) -> Steps:
    rows = [s.row() for _ in range(5)]
    _leave_single_row_mode(s)
    s.rollback()
    yield
    with s.conn.transaction():
        with s.conn.pipeline():
            for row in rows:
                s.ledger.begin(row, autocommit=False)
                s.conn.execute(s.insert, (row, 0))
        for row in rows:
            s.ledger.acknowledge(row, autocommit=False)
        s.ledger.committing()
    s.ledger.committed()


@operation(loose=True)
def executemany_in_a_pipeline(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(FEW)], s.autocommit
    _leave_single_row_mode(s)
    yield
    with s.ledger.inserting(rows, auto), s.conn.pipeline():
        s.conn.cursor().executemany(s.insert, [(row, 0) for row in rows])


# COPY and notifications


@operation(loose=True)
def copy_out(s: Fixture) -> Steps:
    query = f"select i, repeat('x', 200) from generate_series(1, {ROWS}) i, pg_sleep({s.nap()})"
    yield
    with s.conn.cursor().copy(f"copy ({query}) to stdout") as copy:
        assert sum(1 for _ in copy.rows()) == ROWS


@operation(lax=True, loose=True)
def copy_out_slowly(s: Fixture) -> Steps:
    query = "select i, repeat('x', 1000) from generate_series(1, 200) i"
    yield
    with s.conn.cursor().copy(f"copy ({query}) to stdout") as copy:
        for _ in copy:
            _pause(s)


@operation(loose=True)
def copy_out_given_up(s: Fixture) -> Steps:
    query = "select i, repeat('x', 1000) from generate_series(1, 100000) i"
    yield
    with s.conn.cursor().copy(f"copy ({query}) to stdout") as copy:
        copy.read()
        while copy.read():
            pass


@operation(loose=True)
def copy_in(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(ROWS)], s.autocommit
    yield
    cur = s.conn.cursor()
    with s.ledger.inserting(rows, auto), cur.copy(f"copy {s.table} from stdin") as copy:
        for row in rows:
            copy.write_row((row, 0))


@operation(lax=True, loose=True)
def copy_in_slowly(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(FEW)], s.autocommit
    yield
    cur = s.conn.cursor()
    with s.ledger.inserting(rows, auto), cur.copy(f"copy {s.table} from stdin") as copy:
        for row in _slowly(s, rows):
            copy.write(f"{row}\t0\n")


@operation(fresh=True, autocommit=True, loose=True)
def notifies(s: Fixture) -> Steps:
    s.conn.execute(f"listen {s.table}")
    yield
    s.conn.execute(f"notify {s.table}, 'hello'")
    notes = [note.payload for note in s.conn.notifies(timeout=1, stop_after=1)]
    assert "hello" in notes
