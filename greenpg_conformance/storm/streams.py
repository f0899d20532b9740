"""The storm's operations that move much data: COPY, large objects, pipelines, notifications."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from .table import Steps, operation

if TYPE_CHECKING:
    from .fixture import Fixture

ROWS: Final = 2000
SIZE: Final = 300_000


@operation()
def copy_out(s: Fixture) -> Steps:
    cur, file = s.conn.cursor(), StringIO()
    query = f"select i, repeat('x', 200) from generate_series(1, {ROWS}) i, pg_sleep({s.nap()})"
    yield
    cur.copy_expert(f"copy ({query}) to stdout", file)
    assert file.getvalue().count("\n") == ROWS == cur.rowcount


@operation()
def copy_in(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(ROWS)], s.autocommit
    file = StringIO("".join(f"{row}\t0\n" for row in rows))
    yield
    with s.ledger.inserting(rows, auto):
        s.conn.cursor().copy_from(file, s.table)


@operation()
def copy_in_a_block(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(100)], s.autocommit
    yield
    with s.ledger.inserting(rows, auto), s.conn.cursor().copy(f"copy {s.table} from stdin") as copy:
        for row in rows:
            copy.write_row((row, 0))


@operation()
def copy_out_of_a_block(s: Fixture) -> Steps:
    query = f"select i, repeat('x', 200) from generate_series(1, {ROWS}) i"
    yield
    with s.conn.cursor().copy(f"copy ({query}) to stdout") as copy:
        assert sum(1 for _ in copy.rows()) == ROWS


@operation(loose=True)
def stream(s: Fixture) -> Steps:
    yield
    rows = s.conn.cursor().stream("select i from generate_series(1, %s) i", (ROWS,))
    assert [row[0] for row in rows] == list(range(1, ROWS + 1))


@operation(autocommit=False, loose=True)
def write_large_object(s: Fixture) -> Steps:
    yield
    large = s.conn.lobject(0, "wb")
    large.write(b"x" * SIZE)
    large.close()
    large.unlink()


@operation(autocommit=False, loose=True)
def read_large_object(s: Fixture) -> Steps:
    large: Any = s.conn.lobject(0, "wb")
    large.write(b"y" * SIZE)
    large.seek(0)
    yield
    assert large.read() == b"y" * SIZE
    large.close()
    large.unlink()


@operation(loose=True)
def pipeline(s: Fixture) -> Steps:
    yield
    with s.conn.pipeline() as pipe:
        results = [pipe.execute("select %s", (number,)) for number in range(300)]
        pipe.execute("select pg_sleep(%s)", (min(s.nap(), 1),))  # the end of the block waits
    assert [result.fetchone() for result in results] == [(number,) for number in range(300)]


@operation()
def pipeline_of_inserts(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(50)], s.autocommit
    yield
    with s.ledger.inserting(rows, auto), s.conn.pipeline() as pipe:
        for row in rows:
            pipe.execute(s.insert, (row, 0))


@operation(fresh=True, autocommit=True, loose=True, settles=True)
def listen(s: Fixture) -> Steps:
    s.settled = lambda: not _channels(s)
    yield
    with s.conn.listen(s.table, timeout=1) as notes:
        s.conn.cursor().execute(f"notify {s.table}, 'hello'")
        assert next(notes).payload == "hello"


def _channels(s: Fixture) -> list[Any]:
    with s.conn.cursor() as cur:
        cur.execute("select pg_listening_channels()")
        return list(cur.fetchall())
