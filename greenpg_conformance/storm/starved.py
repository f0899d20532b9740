"""Starves driver, pool and Listener at random moments, and sees that nothing is lost for good.

`python -m greenpg_conformance.storm.starved --backend gevent --rounds 400 --seed 7`
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
from collections.abc import Callable
from random import Random
from typing import Any, Final

import psycopg2
from psycopg2 import extensions as ext

from greenpg import Listener
from greenpg.embedded import server_dsn
from greenpg_conformance.harness.describe import find, installed
from greenpg_conformance.harness.runner import columns_of
from greenpg_conformance.harness.tests import limit
from greenpg_conformance.toolkit.heartbeat import heartbeat
from greenpg_conformance.toolkit.machine import Patience
from greenpg_conformance.toolkit.observer import Observer
from greenpg_conformance.toolkit.watchdog import Watchdog

from .pool_storm import BREATH, PATIENCE, SESSIONS, PoolStorm
from .shortages import (
    CALLS,
    ERRORS,
    FRAMES,
    LEFT,
    SpawnError,
    StarvingBackend,
    few_descriptors,
    short_of_memory,
    short_of_stack,
)  # fmt: skip
from .soaking import arguments, in_child, tell

ROUNDS: Final = 400
SHORT_ROUNDS: Final = 120
STRETCH: Final = 40  # rounds until everything is to be back
STRETCH_SECONDS: Final = 120.0
STALL: Final = 0.1  # seconds for which the hub may be held
MODULE: Final = "greenpg_conformance.storm.starved"
CHANNEL: Final = "starved"


class StarvedStorm(PoolStorm):
    """Borrowers write in pairs, while what they and greenpg need is short."""

    _failures = (*ERRORS, SpawnError, OSError, psycopg2.Error)

    def __init__(self, backend: Any, dsn: str, observer: Any, seed: int, deep: bool) -> None:
        self._observer = observer
        self._dsn = dsn
        self._name: str = ext.parse_dsn(dsn)["application_name"]
        self._table = self._name.replace("-", "_")
        self._numbers = itertools.count(1)
        self._outcomes: dict[int, bool | None] = {}
        self._starving = StarvingBackend(backend, Random(seed + 1))
        self._ways = [self._once, *([self._once_low, self._once_deep] if deep else [])]
        observer.ask(f"create unlogged table {self._table} (number int, half int)")
        super().__init__(backend, dsn, self._count_sessions, None, seed, self._starving)
        self._listener = Listener(dsn, backend=self._starving)

    def _count_sessions(self) -> int:
        return int(self._observer.ask(SESSIONS, self._name)[0][0])

    # Shortages

    def _interrupt(self, number: int) -> None:
        shortage = self._random.choice((self._refuse, self._kill, self._take_descriptors))
        shortage(self._random.expovariate(1 / BREATH))
        self._backend.sleep(self._random.expovariate(1 / BREATH))

    def _refuse(self, seconds: float) -> None:
        self._starving.refuses = True
        self._backend.sleep(seconds)
        self._starving.refuses = False

    def _kill(self, seconds: float) -> None:
        self._backend.sleep(seconds)
        if "kill" in self._backend.capabilities:
            self._starving.kill_tasks()

    def _take_descriptors(self, seconds: float) -> None:
        with few_descriptors(self._random.randrange(LEFT + 1)):
            self._backend.sleep(seconds)

    # Borrowers

    def _borrow(self) -> None:
        while not self._over:
            try:
                self._random.choice(self._ways)()
            except self._failures:
                pass
            except Exception as error:
                if "RecursionError" not in str(error):  # ctypes wraps it
                    raise
            self._backend.sleep(BREATH)

    def _once_low(self) -> None:
        with short_of_memory(self._backend, self._random.randrange(1, CALLS)):
            self._once()

    def _once_deep(self) -> None:
        short_of_stack(self._random.randrange(FRAMES), self._once)

    def _once(self) -> None:
        number = next(self._numbers)
        self._outcomes[number] = None  # it may be either
        write = self._random.choice((_in_turn, _together, _in_pipeline, _by_copy))
        with self.pool.connection() as conn:
            try:
                write(conn, self._table, number)
            except BaseException:
                self._outcomes[number] = False
                raise
        self._outcomes[number] = True
        self.served += 1

    # What must hold

    def _settle(self) -> None:
        super()._settle()
        self._compare()
        self._hear()

    def _compare(self) -> None:
        query = f"select number, count(*) from {self._table} group by 1"
        found = dict(self._observer.ask(query))
        halves = [number for number, count in found.items() if count != 2]
        assert not halves, f"committed in part: {halves}"
        for number, outcome in self._outcomes.items():
            assert outcome in (None, number in found), f"{number} was believed {outcome}"
        self._outcomes.clear()
        self._observer.ask(f"truncate {self._table}")

    def _hear(self) -> None:
        """See that the Listener still serves; one whose task was killed says so at once."""
        patience = Patience(PATIENCE)
        while patience.left():
            try:
                subscription = self._listener.subscribe(CHANNEL, timeout=PATIENCE)
            except (psycopg2.InterfaceError, psycopg2.OperationalError):
                self._listener.close()
                self._listener = Listener(self._dsn, backend=self._starving)
                continue
            self._observer.ask(f"notify {CHANNEL}")
            heard: Any = subscription.get(PATIENCE)
            assert heard is not None, "the listener has not heard a notification"
            subscription.close()
            return
        raise AssertionError("no listener could be had")

    def close(self) -> None:
        """Close all, and see that no session is left."""
        super().close()
        self._listener.close()
        patience = Patience(PATIENCE)
        while found := self._count_sessions():
            assert patience.left(), f"{found} sessions are left"
            self._backend.sleep(BREATH)
        self._observer.ask(f"drop table {self._table}")


def _in_turn(conn: Any, table: str, number: int) -> None:
    with conn.cursor() as cur:
        for half in range(2):
            cur.execute(f"insert into {table} values (%s, %s)", (number, half))


def _together(conn: Any, table: str, number: int) -> None:
    with conn.cursor() as cur:
        rows = [(number, half) for half in range(2)]
        cur.executemany(f"insert into {table} values (%s, %s)", rows)


def _in_pipeline(conn: Any, table: str, number: int) -> None:
    with conn.pipeline() as pipe:
        for half in range(2):
            pipe.execute(f"insert into {table} values (%s, %s)", (number, half))


def _by_copy(conn: Any, table: str, number: int) -> None:
    with conn.cursor() as cur, cur.copy(f"copy {table} from stdin") as copy:
        for half in range(2):
            copy.write_row((number, half))


def _play(storm: StarvedStorm, backend: Any, rounds: int, watch: Callable[[], object]) -> None:
    with heartbeat(backend, STALL):
        for _ in range(max(1, rounds // STRETCH)):
            watch()
            storm.play(min(rounds, STRETCH))
    storm.close()


@limit(120)
def test_shortages(ctx: Any) -> None:
    """Let no task begin, kill greenpg's own, and leave few descriptors, for a while."""
    seed = ctx.random.randrange(1 << 30)  # `make soak` adds lacks of memory and of stack
    storm = StarvedStorm(ctx.backend, ctx.dsn, ctx.server, seed, deep=False)
    _play(storm, ctx.backend, SHORT_ROUNDS, lambda: None)


def soak(backend: str, dsn: str, rounds: int, seed: int) -> None:
    """Play the rounds in this process."""
    for name in ("greenpg", "greenpg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what goes wrong here
    found, description = find(backend)
    name = f"greenpg-starved-{os.getpid()}"
    observer = Observer(dsn)
    watchdog = Watchdog(tell)
    named, deep = ext.make_dsn(dsn, application_name=name), description.survives_recursion()
    storm = StarvedStorm(found, named, observer, seed, deep)
    _play(storm, found, rounds, lambda: watchdog.arm(STRETCH_SECONDS))
    watchdog.disarm()
    observer.close()
    tell(f"  {storm.served} blocks served, nothing lost")


def main() -> int:
    """Soak backends in all their modes, each in a child process; 0 if all went well."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    args = arguments(parser, ROUNDS)
    columns = [pair for which in args.backend or installed() for pair in columns_of(which)]
    codes = []
    with server_dsn() as dsn:
        for column, mode in columns:
            call = f"soak({column.backend!r}, dsn, {args.rounds}, {args.seed})"
            codes.append(in_child(column, mode, dsn, args.rounds, args.seed, MODULE, call))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
