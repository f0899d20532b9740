"""What the tests of COPY share: files, a table, and a server that falls asleep half-way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, Final

from greenpg.errors import InFailedSqlTransaction
from greenpg_conformance.harness.context import Context
from greenpg_conformance.harness.tests import raises

BLOCK: Final = b"some text of sixteen characters and more, for a row\n" * 1260  # 64 KB
ROWS: Final = "copy (select repeat('x', 99) from generate_series(1, {})) to stdout"
ASLEEP: Final = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"


class Source:
    """A file of so many blocks, endless without a number; counts what was taken."""

    def __init__(self, blocks: int | None = None) -> None:
        self.taken = 0
        self._blocks = repeat(BLOCK) if blocks is None else repeat(BLOCK, blocks)

    def read(self, size: int) -> bytes:
        """Return the next block, whatever size is asked for."""
        block = next(self._blocks, b"")
        self.taken += len(block)
        return block


class Sink:
    """A file that keeps nothing but the size, and may be slow."""

    def __init__(self, pause: Callable[[], object] | None = None) -> None:
        self.size = 0
        self._pause = pause

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._pause is not None:
            self._pause()


class Half:
    """COPYs in which the server falls asleep half-way, after it has dealt with some rows."""

    def __init__(self, ctx: Context) -> None:
        self.conn = ctx.connect()
        self._ctx = ctx
        self._cur = self.conn.cursor()
        self._cur.execute(
            """
            create temp table t (data text);
            create function pg_temp.doze() returns trigger language plpgsql as
            $$ begin perform pg_sleep(60); return new; end $$;
            create temp sequence seen;
            create trigger doze before insert on t for each row
            when (nextval('seen') = 5000) execute function pg_temp.doze()
            """
        )
        self.conn.commit()
        self._sleepy = (
            "copy (select repeat('x', 99), case when n = 5000 then pg_sleep(60) end"
            " from generate_series(1, 9999) n) to stdout"
        )

    def write(self) -> None:
        with self._cur.copy("copy t from stdin") as copy:
            while True:
                copy.write(BLOCK)

    def read(self) -> None:
        with self._cur.copy(self._sleepy) as copy:
            for _ in copy.rows():
                pass

    def wait(self) -> None:
        """Wait until the server sleeps."""
        pid = self.conn.info.backend_pid
        self._ctx.wait_until(lambda: self._ctx.server.ask(ASLEEP, pid), "the server sleeps")

    def check(self) -> None:
        check_nothing_loaded(self._cur)


WAYS: Final[dict[str, Callable[[Half], None]]] = {
    "copy_from": lambda half: half._cur.copy_from(Source(), "t"),
    "copy_to": lambda half: half._cur.copy_expert(half._sleepy, Sink()),
    "write": Half.write,
    "read": Half.read,
}


def table(ctx: Context, dsn: str | None = None) -> Any:
    """Return a cursor in a transaction that made the table t."""
    cur = ctx.connect(dsn).cursor()
    cur.execute("create temp table t (data text)")
    return cur


def check_nothing_loaded(cur: Any) -> None:
    """Fail unless the transaction takes only a rollback, after which the table t is empty."""
    with raises(InFailedSqlTransaction):
        cur.connection.commit()
    cur.connection.rollback()
    assert row_count(cur) == 0


def row_count(cur: Any) -> Any:
    cur.execute("select count(*) from t")
    return cur.fetchone()[0]
