"""Random interrupts over all operations, from a seed: any round can be played again alone.

`python -m greenpg_conformance.storm.storm --backend gevent --rounds 1000 --seed 7`
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from random import Random
from typing import Any, Final

from psycopg2 import extensions as ext

import greenpg
from greenpg.backend import current
from greenpg.embedded import server_dsn
from greenpg_conformance.harness.describe import find, installed
from greenpg_conformance.harness.drivers import BOTH, PSYCOPG2, Driver
from greenpg_conformance.harness.drivers import find as find_driver
from greenpg_conformance.harness.runner import columns_of
from greenpg_conformance.harness.tests import (
    PSYCOPG2_NAME,
    PSYCOPG_NAME,
    each,
    limit,
    needs,
    over_psycopg,
)
from greenpg_conformance.toolkit.observer import Observer
from greenpg_conformance.toolkit.proxy import Proxy
from greenpg_conformance.toolkit.watchdog import Watchdog

from .interrupts import HARD, CountingBackend, Interrupt, draw, kinds, pairs
from .round import Round, prepared
from .soaking import arguments, in_child, tell
from .table import OPERATIONS, Operation

ROUNDS: Final = 300
ROUND_SECONDS: Final = 60.0
DELAYS: Final = (0.001, 0.004)
TWICE: Final = ((1, 2), (2, 3), (3, 4), (3, 5), (4, 5), (5, 6))  # at which waits Ctrl-C comes
MODULE: Final = "greenpg_conformance.storm.storm"
END_SESSIONS: Final = """
    select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where application_name = %s and pid <> %s
"""


def operations(driver: Driver) -> list[Operation]:
    """Return those that can be played over a driver."""
    if driver.name == PSYCOPG_NAME:
        from . import psycopg3  # noqa: F401  it fills the table; psycopg 3 is an extra
    return [operation for operation in OPERATIONS if driver.name in operation.drivers]


class StormError(AssertionError):
    """A round went wrong; the text has its seed and what was done."""


class Storm:
    """Rounds of random interrupts against one server."""

    def __init__(
        self,
        backend: Any,
        description: Any,
        dsn: str,
        observer: Any,
        proxy: Any,
        driver: Driver = PSYCOPG2,
    ) -> None:
        self.driver = driver
        self.operations = operations(driver)
        self.counting = CountingBackend(backend)
        self.description = description
        self.observer = observer
        self.dsn = dsn
        self.application: str = ext.parse_dsn(dsn)["application_name"]
        self.rows = itertools.count(1)
        self.table = f"{self.application.replace('-', '_')}_storm"
        self.kinds = kinds(backend, description)
        self.draw: Callable[[Random, tuple[str, ...]], list[Interrupt]] = draw
        self.lost = 0  # connections closed for want of anything better
        self._proxy = proxy

    def check(self, rounds: int) -> None:
        """Fail if too many connections were closed: an interrupt is to cost a query only."""
        assert self.lost <= 1 + rounds // 20, f"{self.lost} connections lost in {rounds} rounds"

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Make the table, and put psycopg2's own connections on the counting backend."""
        chosen = current()
        self._create()
        greenpg.use(self.counting)
        try:
            yield
        finally:
            greenpg.use(chosen)
            self.observer.ask(f"drop table {self.table}")
            self.observer.ask(f"drop function {self.table}_nap")

    def _create(self) -> None:
        ask, table = self.observer.ask, self.table
        ask(f"create unlogged table {table} (id bigint primary key, nap float8)")
        ask(
            f"create function {table}_nap() returns trigger language plpgsql as "
            "'begin perform pg_sleep(new.nap); return null; end'"
        )
        ask(
            f"create constraint trigger nap after insert on {table} deferrable initially deferred "
            f"for each row when (new.nap > 0) execute function {table}_nap()"
        )

    def round(self, seed: int) -> None:
        """Play one round; StormError names its seed and what was done."""
        rng = Random(seed)
        with self.driver.older_libpq() if rng.random() < 0.25 else nullcontext():
            play = Round(self, seed, self._link(rng))
            self._judged(play, seed, lambda: play.run(rng))

    def one(self, operation: Operation, interrupts: list[Interrupt]) -> None:
        """Play one operation with these interrupts."""
        play = Round(self, 0, self.dsn)
        self._judged(play, 0, lambda: play.run_one(operation, interrupts))

    def _judged(self, play: Round, seed: int, run: Callable[[], object]) -> None:
        try:
            run()
            play.close()
        except BaseException as error:
            self._sweep()
            told = "\n  ".join(play.story)
            raise StormError(f"seed {seed}: {error!r} after\n  {told}") from error

    def _link(self, rng: Random) -> Any:
        if rng.random() < 0.7:
            return self.dsn
        self._proxy.delay(rng.choice(DELAYS), way="both")
        return self._proxy.dsn

    def _sweep(self) -> None:
        """End what a failed round has left on the server."""
        self.end_sessions(0)
        for gid in prepared(self.observer, self.table):
            self.observer.ask(f"rollback prepared '{gid}'")

    def end_sessions(self, living: int) -> None:
        """End all sessions but one."""
        self.observer.ask(END_SESSIONS, self.application, living)


@limit(120)
@over_psycopg()
def test_random_interrupts(ctx: Any) -> None:
    """Play 300 rounds in all modes of a backend together."""
    modes = [mode.name for mode in ctx.description.modes]
    rounds = ROUNDS // len(modes)
    first = ctx.random.randrange(1 << 30) + rounds * modes.index(ctx.around.mode.name)
    storm = _storm(ctx)

    with storm.ready():
        for seed in range(first, first + rounds):
            ctx.note(f"storm, seed {seed}")
            storm.round(seed)
    storm.check(rounds)


@needs("hub")
@each(*[operation.name for operation in OPERATIONS])
def test_ctrl_c_twice(ctx: Any, operation: str) -> None:
    """Give up the connection when the user does not wait; what propagates is the interrupt."""
    _give_up(_storm(ctx), operation)


@needs("hub")
@limit(180)
@over_psycopg("")
@each()
def test_ctrl_c_twice_in_any_operation(ctx: Any) -> None:
    """The same over another driver, whose operations are not known before it is imported."""
    storm = _storm(ctx)
    for operation in storm.operations:
        ctx.note(operation.name)
        _give_up(storm, operation.name)


def _storm(ctx: Any) -> Storm:
    return Storm(ctx.backend, ctx.description, ctx.dsn, ctx.server, ctx.proxy(), ctx.driver)


def _give_up(storm: Storm, operation: str) -> None:
    chosen = next(one for one in storm.operations if one.name == operation)
    with storm.ready():
        for first, second in TWICE:
            storm.one(chosen, [Interrupt(HARD, first, 0.0), Interrupt(HARD, second, 0.0)])


def soak(column: str, dsn: str, seeds: range, closely: bool, driver: str = PSYCOPG2_NAME) -> None:
    """Play rounds in this process; after a failed one print how to repeat it, and exit with 1.

    `closely`: each operation suffers two or three interrupts that follow each other at once.
    """
    found, description = find(column.partition("/")[0])
    name = f"greenpg-storm-{os.getpid()}"
    named = ext.make_dsn(dsn, application_name=name)
    observer = Observer(ext.make_dsn(dsn, application_name=f"{name}-observer"))
    watchdog = Watchdog(tell)
    with Proxy(named) as proxy:
        storm = Storm(found, description, named, observer, proxy, find_driver(driver))
        storm.draw = pairs if closely else draw
        with storm.ready():
            for seed in seeds:
                watchdog.arm(ROUND_SECONDS)
                _play(storm, column, seed)
        if not closely:  # to whom gives up twice, connections are lost
            storm.check(len(seeds))
        tell(f"  {storm.lost} connections lost")
    watchdog.disarm()
    observer.close()


def _play(storm: Storm, column: str, seed: int) -> None:
    try:
        storm.round(seed)
    except StormError as error:
        tell(str(error))
        how = f"--backend {column} --driver {storm.driver.name}"
        how += " --pairs" if storm.draw is pairs else ""
        tell(f"again: python -m {MODULE} {how} --rounds 1 --seed {seed}")
        raise SystemExit(1) from error


def main() -> int:
    """Soak backends in child processes, one after the other; 0 if all rounds went well."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    closely = "interrupts only two or three at a time, close by"
    parser.add_argument("--pairs", action="store_true", help=closely)
    parser.add_argument("--driver", choices=BOTH, default=PSYCOPG2_NAME)
    args = arguments(parser, ROUNDS)
    codes = []
    with server_dsn() as dsn:
        for column, mode in [columns_of(which)[0] for which in args.backend or installed()]:
            seeds = range(args.seed, args.seed + args.rounds)
            call = f"soak({str(column)!r}, dsn, {seeds!r}, {args.pairs}, {args.driver!r})"
            codes.append(in_child(column, mode, dsn, args.rounds, args.seed, MODULE, call))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
