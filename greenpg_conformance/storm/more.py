"""The storm's operations that wait for others too: slow files, slow rows, others' queries."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from greenpg_conformance.harness.drivers import BOTH

from .table import Steps, operation
from .tasks import Sleeper

if TYPE_CHECKING:
    from .fixture import Fixture

ROWS: Final = 200
MANY: Final = 10_000
PAUSE: Final = 0.0005


def _pause(s: Fixture) -> None:
    """Wait where interrupts are counted, as a file on the network does."""
    s.backend.event().wait(PAUSE)


class _SlowFile(StringIO):
    def __init__(self, s: Fixture, text: str = "") -> None:
        super().__init__(text)
        self._fixture = s

    def read(self, size: int | None = -1) -> str:
        _pause(self._fixture)
        return super().read(min(size or 100, 100))

    def write(self, text: Any) -> int:
        _pause(self._fixture)
        return super().write(text)


@operation(loose=True)
def copy_from_a_slow_file(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(ROWS)], s.autocommit
    file = _SlowFile(s, "".join(f"{row}\t0\n" for row in rows))
    yield
    with s.ledger.inserting(rows, auto):
        s.conn.cursor().copy_from(file, s.table)


@operation()
def copy_to_a_slow_file(s: Fixture) -> Steps:
    cur, file = s.conn.cursor(), _SlowFile(s)
    query = "select i, repeat('x', 1000) from generate_series(1, 500) i"
    yield
    cur.copy_expert(f"copy ({query}) to stdout", file)
    assert file.getvalue().count("\n") == cur.rowcount == 500


@operation()
def executemany_in_a_pipeline(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(ROWS)], s.autocommit
    yield
    with s.ledger.inserting(rows, auto):
        cur = s.conn.cursor()
        cur.executemany(s.insert, [(row, 0) for row in rows])
        assert cur.rowcount == ROWS


@operation(lax=True, loose=True)
def executemany_of_slow_rows(s: Fixture) -> Steps:
    auto = s.autocommit
    yield
    s.conn.cursor().executemany(s.insert, _slow_rows(s, auto))


def _slow_rows(s: Fixture, auto: bool) -> Iterator[tuple[int, int]]:
    row = None
    for _ in range(10):
        _pause(s)
        if row is not None:
            s.ledger.acknowledge(row, auto)
        row = s.row()
        s.ledger.begin(row, auto)
        yield row, 0


@operation(lax=True, loose=True, drivers=BOTH)
def fetch_many_rows(s: Fixture) -> Steps:
    cur = s.conn.cursor()
    cur.execute("select i, repeat('x', 10) from generate_series(1, %s) i", (MANY,))
    yield
    found = cur.fetchall()
    assert (len(found), found[0][0], found[-1][0]) == (MANY, 1, MANY)


@operation(loose=True)
def stream_given_up(s: Fixture) -> Steps:
    yield
    rows = s.conn.cursor().stream("select i from generate_series(1, 1000) i")
    assert next(rows) == (1,)
    rows.close()


@operation(lax=True, loose=True, drivers=BOTH)
def under_a_deadline(s: Fixture) -> Steps:
    yield
    with s.conn.deadline(60), s.conn.deadline(50):
        s.echo()
        s.echo(nap=0)


@operation(autocommit=True, lax=True, drivers=BOTH)
def cancel(s: Fixture) -> Steps:
    s.jobs.append(Sleeper(s, s.conn))
    yield
    s.conn.cancel()


@operation(elsewhere=True, drivers=BOTH)
def close(s: Fixture) -> Steps:
    conn = s.another()
    s.jobs.append(Sleeper(s, conn))
    yield
    conn.close()
