"""Soaks the pool: `python -m greenpg_conformance.storm.pool_soak --rounds 20000`.

Interrupts borrowers in each mode, then stops the server for 20 seconds under load.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from typing import Any, Final

import psycopg2
from psycopg2.extensions import make_dsn

from greenpg.embedded import EmbeddedServer, server_dsn
from greenpg.pool import ConnectionPool
from greenpg_conformance.harness.describe import find, installed
from greenpg_conformance.harness.runner import columns_of
from greenpg_conformance.toolkit.jobs import Job
from greenpg_conformance.toolkit.observer import Observer

from .pool_storm import SESSIONS, PoolStorm
from .soaking import arguments, in_child, tell

ROUNDS: Final = 20_000
STRETCH: Final = 500  # rounds until the slots are counted
OUTAGE_SECONDS: Final = 20.0
TASKS: Final = 32
PATIENCE: Final = 60.0  # of tasks, so that the outage itself costs them nothing
MODULE: Final = "greenpg_conformance.storm.pool_soak"


def soak(backend: str, dsn: str, rounds: int, seed: int) -> None:
    """Play the rounds in this process, then the outage."""
    logging.getLogger("greenpg.pool").setLevel(logging.ERROR)  # it logs what we interrupt
    found, description = find(backend)
    name = f"greenpg-pool-{os.getpid()}"
    observer = Observer(dsn)
    storm = PoolStorm(
        found,
        make_dsn(dsn, application_name=name),
        lambda: int(observer.ask(SESSIONS, name)[0][0]),
        description.timeout,
        seed,
    )
    for _ in range(max(1, rounds // STRETCH)):
        storm.play(min(rounds, STRETCH))
    storm.close()
    observer.close()
    tell(f"  {storm.interrupted} kills, {storm.served} blocks served, no slot lost")
    _outage(found)


def _outage(backend: Any) -> None:
    server = EmbeddedServer()
    pool = ConnectionPool(server.dsn, backend=backend, min_size=8, timeout=PATIENCE)
    load = _Load(backend, pool)
    backend.sleep(1)
    server.halt()
    backend.sleep(OUTAGE_SECONDS)
    server.resume()
    back = time.monotonic()
    backend.sleep(3)
    load.stop()
    first = min(moment for moment in load.good if moment > back) - back
    pool.close()
    server.stop()
    tell(f"  outage of {OUTAGE_SECONDS:g} s: {len(load.errors)} errors, back in {first:.2f} s")
    assert len(load.errors) <= 8, load.errors
    assert first <= 1.0


class _Load:
    """Tasks that ask something as often as they can."""

    def __init__(self, backend: Any, pool: ConnectionPool) -> None:
        self.good: list[float] = []
        self.errors: list[BaseException] = []
        self._backend = backend
        self._pool = pool
        self._over = False
        self._jobs = [Job(backend, self._work, ()) for _ in range(TASKS)]

    def _work(self) -> None:
        while not self._over:
            try:
                with self._pool.connection() as conn, conn.cursor() as cur:
                    cur.execute("select 1")
            except psycopg2.Error as error:
                self.errors.append(error)
            else:
                self.good.append(time.monotonic())
            self._backend.sleep(0.01)

    def stop(self) -> None:
        self._over = True
        for job in self._jobs:
            job.result()


def main() -> int:
    """Soak backends in all their modes, each in a child process; 0 if all went well."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    args = arguments(parser, ROUNDS)
    rounds, seed = args.rounds, args.seed
    columns = [pair for which in args.backend or installed() for pair in columns_of(which)]
    codes = []
    with server_dsn() as dsn:
        for column, mode in columns:
            call = f"soak({column.backend!r}, dsn, {rounds}, {seed})"
            codes.append(in_child(column, mode, dsn, rounds, seed, MODULE, call))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
