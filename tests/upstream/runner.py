"""Runs psycopg2's suite under one backend, in child processes, as tests may hang or crash."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from psycopg2.extensions import parse_dsn

_WORKER = Path(__file__).with_name("worker.py")
_SERVER_VARIABLES = {
    "dbname": "PSYCOPG2_TESTDB",
    "host": "PSYCOPG2_TESTDB_HOST",
    "port": "PSYCOPG2_TESTDB_PORT",
    "user": "PSYCOPG2_TESTDB_USER",
    "password": "PSYCOPG2_TESTDB_PASSWORD",
}


class SuiteBroken(Exception):
    """The suite's process ended outside any test; the text names the log."""


@dataclass(frozen=True, slots=True)
class Result:
    """One test's outcome: `passed`, `skipped` or `failed`; a hang or crash counts as `failed`."""

    test: str
    outcome: str
    note: str
    seconds: float


@dataclass(slots=True)
class Run:
    """One backend's run: the places of tests, server and log, and the tests to run."""

    backend: str
    suite: Path
    dsn: str
    log: Path
    patterns: Sequence[str]
    limit: float
    done: list[str] = field(default_factory=list, init=False)

    def results(self) -> Iterator[Result]:
        """Yield each result at once; after a hang or a crash a new process continues."""
        self.log.write_bytes(b"")
        while lost := (yield from self._results_of_process()):
            self.done.append(lost.test)
            yield lost

    def _results_of_process(self) -> Generator[Result, None, Result | None]:
        """Yield the results of one process; return that of the test during which it ended."""
        running, since = "", 0.0
        with self._process() as process:
            for line in process.stdout or ():
                event = json.loads(line)
                running, since = event["test"], monotonic()
                if "outcome" in event:
                    self.done.append(running)
                    yield Result(**event)
                    running = ""
            status = process.wait()
        if running:
            return self._lost(running, monotonic() - since, status)
        if status:
            fact = f"{self.backend}: the suite's process ended with {status} outside any test"
            raise SuiteBroken(f"{fact}; see {self.log}")
        return None

    def _lost(self, test: str, seconds: float, status: int) -> Result:
        hung = seconds >= self.limit
        fact = f"no end after {self.limit:g} s" if hung else f"the process ended with {status}"
        return Result(test, "failed", f"{fact}; see {self.log}\n", round(seconds, 3))

    @contextmanager
    def _process(self) -> Iterator[subprocess.Popen[str]]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.suite,
                env=_environment(self.dsn),
                start_new_session=True,
                text=True,
            )
        with process:
            try:
                self._send_plan(process)
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _send_plan(self, process: subprocess.Popen[str]) -> None:
        plan = {
            "backend": self.backend,
            "suite": str(self.suite),
            "done": self.done,
            "patterns": list(self.patterns),
            "limit": self.limit,
        }
        assert process.stdin
        with process.stdin as pipe:
            json.dump(plan, pipe)


def _environment(dsn: str) -> dict[str, str]:
    """Return this environment, with only the server in the suite's own variables."""
    foreign = ("PSYCOPG2_", "PG", "GREENPG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    server = parse_dsn(dsn)
    named = {name: server[key] for key, name in _SERVER_VARIABLES.items() if key in server}
    if "passfile" in server:
        named["PGPASSFILE"] = server["passfile"]
    return kept | named | {"PSYCOPG2_TEST_REPL_DSN": ""}  # empty: the same server
