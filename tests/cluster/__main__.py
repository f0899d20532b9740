"""python -m tests.cluster: programs on a Patroni cluster whose primary fails.

Each round kills the primary's node with SIGKILL, and then asks for a switchover, while several
programs write and read. Exits with 1 if a promise did not hold, with 2 if something is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from tests.environments import ROOT

from . import load
from ._nodes import Cluster, Node
from ._processes import PACKAGES, ClusterError, found
from ._sampling import Sessions, connected, promotion
from ._verdict import Event, Outcome, judge, table

LIBRARIES: Final = ("gevent", "eventlet")
DRIVERS: Final = ("psycopg2", "psycopg", "sqlalchemy")
WAYS: Final = ("direct", "pgbouncer")
NAMES: Final = ["-".join(words) for words in product(LIBRARIES, DRIVERS, WAYS)]
CALM: Final = 3.0  # seconds between events
COUNTS: Final = "select task, number, count(*) from {} group by task, number"


@dataclass
class Program:
    """A process of tests/cluster/load.py."""

    name: str
    directory: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def table(self) -> str:
        return f"rows_{self.name.replace('-', '_')}"

    def start(self, cluster: Cluster) -> None:
        library, driver, way = self.name.split("-")
        dsn = f"{cluster.dsn(way == 'pgbouncer')} application_name={self.name}"
        arguments = [library, driver, way, dsn, self.table, str(self._path("result"))]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.cluster.load", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._path("log").open("wb"),
            cwd=ROOT,
            env=cluster.environment(),
            start_new_session=True,
        )

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise ClusterError(f"{self.name} did not start:\n{self.log()}")

    def stop(self) -> None:
        """Close its input, which ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def told(self) -> dict[str, list[object]]:
        """Return what it has done, once it has ended."""
        if self.process.wait(2 * load.END_SECONDS) != 0:
            raise ClusterError(f"{self.name} did not end in order:\n{self.log()}")
        result: dict[str, list[object]] = json.loads(self._path("result").read_text())
        return result

    def end(self) -> None:
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self._path("log").read_text()

    def _path(self, kind: str) -> Path:
        return self.directory / f"{self.name}.{kind}"


@dataclass
class Run:
    """Programs side by side, and what happens to them."""

    cluster: Cluster
    programs: list[Program]
    console: Console
    events: list[Event] = field(default_factory=list)

    def make_tables(self) -> None:
        with connected(self.cluster.roles()[0].dsn()) as cur:
            for program in self.programs:
                # not unique: a row that is written twice must show
                cur.execute(f"create table {program.table} (task int, number int)")
                cur.execute(f"create index on {program.table} (task, number)")

    def kill(self) -> None:
        primary, standby = self.cluster.roles()
        self._cause("kill", standby, primary.kill)
        time.sleep(CALM)
        primary.start()
        self.cluster.await_health()

    def switch_over(self) -> None:
        primary, standby = self.cluster.roles()
        self._cause("switchover", standby, lambda: primary.hand_over(standby))
        self.cluster.await_health()

    def _cause(self, kind: str, standby: Node, act: object) -> None:
        time.sleep(CALM)
        event = Event(kind, *promotion(standby, act))  # type: ignore[arg-type]
        self.events.append(event)
        seconds = event.promoted - event.began
        self.console.print(f"{kind}: node {standby.name} is primary after {seconds:.1f} s")

    def outcomes(self, sessions: Sessions) -> Iterator[Outcome]:
        told = {program.name: program.told() for program in self.programs}
        with connected(self.cluster.roles()[0].dsn()) as cur:
            for program in self.programs:
                cur.execute(COUNTS.format(program.table))
                most = sessions.most[program.name]
                yield judge(
                    program.name, told[program.name], cur.fetchall(), self.events, most,
                    2 * load.SESSIONS,
                )  # fmt: skip


def run(cluster: Cluster, programs: list[Program], rounds: int, console: Console) -> bool:
    """Run some programs together; print what came of it, and return whether all held."""
    console.print(f"[bold]{', '.join(program.name for program in programs)}[/]")
    one = Run(cluster, programs, console)
    one.make_tables()
    sessions = Sessions(cluster.nodes)
    try:
        for program in programs:
            program.start(cluster)
        for program in programs:
            program.await_ready()
        for _ in range(rounds):
            one.kill()
            one.switch_over()
        time.sleep(CALM)
        for program in programs:
            program.stop()
        outcomes = list(one.outcomes(sessions))
    finally:
        for program in programs:
            program.end()
        sessions.stop()
    report(console, outcomes, one.events)
    return not any(outcome.faults for outcome in outcomes)


def report(console: Console, outcomes: Sequence[Outcome], events: Sequence[Event]) -> None:
    """Print the figures, the errors that programs saw, and the promises that did not hold."""
    console.print(table(outcomes, events))
    for outcome in outcomes:
        for text, count in sorted(outcome.errors.items()):
            console.print(f"{outcome.name}: {count} x {text}", style="dim", markup=False)
        for fault in outcome.faults:
            console.print(f"{outcome.name}: {fault}", style="red", markup=False)


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """Run a cluster during the block."""
    cluster = Cluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("programs", nargs="*", help=f"parts of names, of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3, help="of a kill and a switchover")
    parser.add_argument("--together", type=int, default=2, help="programs at the same time")
    parser.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    return parser.parse_args(words)


def versions(programs: dict[str, Path]) -> str:
    """Return the servers' own words for their versions."""
    words = []
    for path in programs.values():
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        words.append(done.stdout.splitlines()[0])
    return ", ".join(words)


def main(words: Sequence[str]) -> int:
    """Run the chosen programs in groups."""
    chosen = options(words)
    console = Console() if sys.stdout.isatty() else Console(width=140, soft_wrap=True)
    programs = found()
    missing = [package for name, package in PACKAGES.items() if name not in programs]
    if missing:
        console.print(f"missing: {', '.join(missing)}; apt-get install {' '.join(missing)}")
        return 2
    names = [
        name for name in NAMES if not chosen.programs or any(p in name for p in chosen.programs)
    ]
    console.print(f"{date.today()}: {versions(programs)}")
    directory = Path(tempfile.mkdtemp(prefix="greenpg-cluster-", dir="/tmp"))
    held = True
    try:
        with running(directory) as cluster:
            for first in range(0, len(names), chosen.together):
                group = [
                    Program(name, directory) for name in names[first : first + chosen.together]
                ]
                held = run(cluster, group, chosen.rounds, console) and held
    except ClusterError as error:
        console.print(str(error), style="red", markup=False)
        held = False
    finally:
        if not chosen.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return int(not held)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    sys.exit(main(sys.argv[1:]))
