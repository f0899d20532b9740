"""python -m tests.cluster.load: green threads that write and read until they are stopped.

What it did is written to a file as JSON; times are those of `time.monotonic`.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import greenlet
import psycopg
import psycopg2
import sqlalchemy
import sqlalchemy.exc
from psycopg2.extensions import parse_dsn

import greenpg
from greenpg.backend import current
from greenpg.pool import PoolSet

WRITERS: Final = 100
READERS: Final = 100
SESSIONS: Final = 10  # of each pool
PAUSE: Final = 0.4  # seconds, between the operations of a task
PATIENCE: Final = 60.0  # seconds that a task waits for a session
AGAIN: Final = 0.05  # seconds, until a task repeats what has failed
END_SECONDS: Final = 60.0  # from the order to stop, and until it is at work
_NUMBER: Final = re.compile(r"\d+(\.\d+)*")

Committing = Callable[[], None]


class Psycopg:
    """A PoolSet of psycopg2 or psycopg 3."""

    def __init__(self, dsn: str, driver: str, bounced: bool) -> None:
        self.error: Any = psycopg.Error if driver == "psycopg" else psycopg2.Error
        # PgBouncer before 1.21 forgets prepared statements
        plain = {"prepare_threshold": None} if bounced and driver == "psycopg" else {}
        self._pools = PoolSet(
            dsn, driver=driver, min_size=2, max_size=SESSIONS, timeout=PATIENCE, kwargs=plain
        )

    def write(self, statement: str, key: dict[str, int], committing: Committing) -> None:
        with self._pools.primary.connection() as conn:
            conn.cursor().execute(statement, key)
            committing()

    def read(self, statement: str, key: dict[str, int]) -> None:
        with self._pools.replica.connection() as conn, conn.cursor() as cur:
            cur.execute(statement, key)
            cur.fetchone()

    def close(self) -> None:
        self._pools.close()


class Alchemy:
    """Two engines, as docs/cluster.md makes them."""

    error = sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError

    def __init__(self, dsn: str, driver: str, bounced: bool) -> None:
        self._primary = self._engine(dsn, target_session_attrs="read-write")
        self._replica = self._engine(
            dsn, target_session_attrs="prefer-standby", load_balance_hosts="random"
        )
        sqlalchemy.event.listen(self._primary, "handle_error", demoted)

    def _engine(self, dsn: str, **attributes: str) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(
            "postgresql+greenpg://",
            connect_args={**parse_dsn(dsn), **attributes},
            pool_size=SESSIONS,
            max_overflow=0,
            pool_timeout=PATIENCE,
            pool_pre_ping=True,
        )

    def write(self, statement: str, key: dict[str, int], committing: Committing) -> None:
        with self._primary.connect() as conn:
            conn.exec_driver_sql(statement, key)
            committing()
            conn.commit()

    def read(self, statement: str, key: dict[str, int]) -> None:
        with self._replica.connect() as conn:
            conn.exec_driver_sql(statement, key).one()

    def close(self) -> None:
        self._primary.dispose()
        self._replica.dispose()


def demoted(context: Any) -> None:
    """Let a session that may not write any more be closed."""
    if isinstance(context.original_exception, psycopg2.errors.ReadOnlySqlTransaction):
        context.is_disconnect = True


class Load:
    """Tasks that insert rows, each once, and tasks that read them."""

    def __init__(self, access: Psycopg | Alchemy, table: str) -> None:
        self._access = access
        self._insert = f"insert into {table} values (%(task)s, %(number)s)"
        self._select = f"select max(number) from {table} where task = %(task)s"
        self._over = False
        self.done: list[tuple[int, int, float]] = []
        self.unknown: list[tuple[int, int]] = []  # the COMMIT had begun
        self.reads: list[float] = []
        self.errors: Counter[str] = Counter()
        self.broken: list[str] = []

    def stop(self) -> None:
        self._over = True

    def run(self, work: Callable[[int], None], task: int) -> None:
        """Keep what ends a task too early; the run then fails."""
        try:
            work(task)
        except Exception:
            self.broken.append(traceback.format_exc())

    def writer(self, task: int) -> None:
        number = 0
        while not self._over:
            number += 1
            while not self._write({"task": task, "number": number}) and not self._over:
                current().sleep(AGAIN)
            current().sleep(PAUSE)

    def _write(self, key: dict[str, int]) -> bool:
        """Return False if the row was certainly not written."""
        begun: list[bool] = []
        try:
            self._access.write(self._insert, key, lambda: begun.append(True))
        except self._access.error as error:
            self._note("COMMIT" if begun else "write", error)
            if begun:
                self.unknown.append((key["task"], key["number"]))
            return bool(begun)
        self.done.append((key["task"], key["number"], time.monotonic()))
        return True

    def reader(self, task: int) -> None:
        while not self._over:
            current().sleep(PAUSE if self._read({"task": task}) else AGAIN)

    def _read(self, key: dict[str, int]) -> bool:
        try:
            self._access.read(self._select, key)
        except self._access.error as error:
            self._note("read", error)
            return False
        self.reads.append(time.monotonic())
        return True

    def _note(self, what: str, error: Any) -> None:
        cause = getattr(error, "orig", None) or error
        told = _NUMBER.sub("N", " ".join(str(cause).split())[:110])
        self.errors[f"{what}: {type(cause).__name__}: {told}"] += 1


def await_order(load: Load) -> None:
    """Stop the load at the end of standard input."""
    sys.stdin.buffer.read()
    load.stop()
    give_up_after(END_SECONDS, load)


def give_up_after(seconds: float, load: Load) -> None:
    """End the process with all stacks, if it still runs then."""
    time.sleep(seconds)
    faulthandler.dump_traceback(all_threads=True)
    for one in gc.get_objects():
        if isinstance(one, greenlet.greenlet) and one.gr_frame is not None:
            print("\ngreenlet", one, file=sys.stderr)
            traceback.print_stack(one.gr_frame, file=sys.stderr)
    print(*load.broken, *load.errors.items(), sep="\n", file=sys.stderr, flush=True)
    os._exit(3)


def announce(load: Load) -> None:
    """Print a line once the tasks are at work."""
    deadline = time.monotonic() + END_SECONDS
    while len(load.done) < WRITERS or len(load.reads) < READERS:
        if time.monotonic() > deadline:
            give_up_after(0, load)
        current().sleep(AGAIN)
    print("ready", flush=True)


def main(library: str, driver: str, way: str, dsn: str, table: str, result: str) -> None:
    """Run until standard input ends."""
    greenpg.use(library)
    kind: Any = Alchemy if driver == "sqlalchemy" else Psycopg
    access = kind(dsn, driver, way == "pgbouncer")
    load = Load(access, table)
    threading.Thread(target=await_order, args=(load,), daemon=True).start()
    jobs = [current().spawn(load.run, load.writer, number) for number in range(WRITERS)]
    jobs += [current().spawn(load.run, load.reader, number) for number in range(READERS)]
    announce(load)
    for job in jobs:
        job.join()
    access.close()
    told = {name: getattr(load, name) for name in ("done", "unknown", "reads", "errors", "broken")}
    Path(result).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
