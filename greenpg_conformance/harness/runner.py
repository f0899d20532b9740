"""Runs the suite: one child process for each backend and mode, and a new one after a hang."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from .child import child_process, kill, unchosen
from .describe import Mode, find
from .results import TRACEBACK, Column, Result

if TYPE_CHECKING:
    from .tests import Test

START_SECONDS: Final = 60.0
GRACE: Final = 5.0  # beyond a test's limit, for the child to print its stacks and end
PROGRAM: Final = "from greenpg_conformance.harness.worker import main; main()"
LOG_TAIL: Final = 6000


def columns_of(which: str) -> list[tuple[Column, Mode]]:
    """Return the columns of `backend` or `backend/mode`; raises BackendError or LookupError."""
    name, _, wanted = which.partition("/")
    modes = find(name)[1].modes
    found = [(Column(name, mode.name), mode) for mode in modes if wanted in ("", mode.name)]
    if not found:
        known = ", ".join(mode.name for mode in modes)
        raise LookupError(f"backend {name!r} has no mode {wanted!r}; it has {known}")
    return found


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests to run on a server; several threads call `on_result` with each result at once."""

    tests: Sequence[Test]
    dsn: str
    seed: int
    on_result: Callable[[Result], object]
    limit: float = inf  # for the tests that have a longer one
    running: Running = field(default_factory=lambda: Running())

    def run(self, columns: Sequence[tuple[Column, Mode]], jobs: int) -> list[Result]:
        """Run all tests in all columns, `jobs` columns at a time; Ctrl-C ends the children."""
        with ThreadPoolExecutor(jobs) as pool:
            runs = [pool.submit(self._run_column, column, mode) for column, mode in columns]
            try:
                return [result for run in runs for result in run.result()]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.running.stop()
                raise

    def _run_column(self, column: Column, mode: Mode) -> list[Result]:
        results: list[Result] = []
        left = list(self.tests)
        while left and not self.running.stopped:
            with self.running.child(mode, self.limit) as child:
                order = {"seed": self.seed, "dsn": self.dsn, "limit": self.limit}
                ids = [test.id for test in left]
                child.order(backend=column.backend, mode=asdict(mode), tests=ids, **order)
                for result in child.results(column, left):
                    if self.running.stopped:
                        return results
                    self.on_result(result)
                    results.append(result)
            left = list(self.tests[len(results) :])
        return results


class Running:
    """The children of all columns."""

    def __init__(self) -> None:
        self.stopped = False
        self._groups: set[int] = set()

    @contextmanager
    def child(self, mode: Mode, limit: float) -> Iterator[_Child]:
        """Start a child for the length of the block."""
        with _started(mode, limit) as (process, child):
            self._groups.add(process.pid)
            try:
                yield child
            finally:
                self._groups.discard(process.pid)

    def stop(self) -> None:
        """Kill all children and let no new one be used."""
        self.stopped = True
        for pid in list(self._groups):
            kill(pid)


class _Child:
    """One process, its events and what it prints."""

    def __init__(self, process: Any, events: int, log: Any, limit: float) -> None:
        self._process, self._events, self._log, self._limit = process, events, log, limit
        self._buffer = b""
        self._began = False
        self._hang = self._note = ""

    def order(self, **orders: Any) -> None:
        with suppress(BrokenPipeError):  # it has ended: its log says why
            self._process.stdin.write(json.dumps(orders).encode() + b"\n")
            self._process.stdin.flush()

    def results(self, column: Column, tests: Sequence[Test]) -> Iterator[Result]:
        """Yield results until all tests are done or one has ended the process."""
        for index, test in enumerate(tests):
            began = time.monotonic()
            end = self._end_of(test, START_SECONDS if index == 0 else 0.0)
            if end is not None:
                told = (end["outcome"], end["seconds"], end["detail"])
                yield Result(column, test.row, test.id, *told)
                continue
            outcome, detail = self._last_words()
            yield Result(column, test.row, test.id, outcome, time.monotonic() - began, detail)
            for never in () if self._began else tests[1:]:
                yield Result(column, never.row, never.id, outcome, 0.0, "see the first one")
            return

    def _end_of(self, test: Test, extra: float) -> dict[str, Any] | None:
        """Return the event that ends a test, or None if the process ends or hangs first."""
        self._note = ""
        deadline = time.monotonic() + min(test.limit, self._limit) + GRACE + extra
        while (event := self._event(deadline)) is not None:
            if "end" in event:
                return event
            self._began = self._began or "start" in event
            self._note = event.get("note", self._note)
            self._hang = event.get("hang", self._hang)
        return None

    def _event(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._events], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._events, 65536) if ready else b""
            if not chunk:
                self._hang = self._hang or ("" if ready else "no stacks: the process is frozen")
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return dict(json.loads(line))

    def _last_words(self) -> tuple[str, str]:
        self._process.kill()
        status = self._process.wait()
        hang = self._hang or "Timeout (" in self._said()  # faulthandler's word for it
        fact = (
            "it hung" if hang else f"the process ended by itself (status {status}){self._error()}"
        )
        noted = f", after: {self._note}" if self._note else ""
        return ("hang" if hang else "fail"), f"{fact}{noted}\n{self._hang}\n{self._said()}"

    def _error(self) -> str:
        """Return the last line of the process's traceback, or "" if it printed none."""
        said = self._said().strip()
        return f": {said.splitlines()[-1]}" if TRACEBACK in said else ""

    def _said(self) -> str:
        self._log.seek(0)
        return str(self._log.read()[-LOG_TAIL:], errors="replace")


@contextmanager
def _started(mode: Mode, limit: float) -> Iterator[tuple[subprocess.Popen[bytes], _Child]]:
    reading, writing = os.pipe()
    environ = {**unchosen(), **mode.environ}
    try:
        with (
            tempfile.TemporaryFile() as log,
            child_process(PROGRAM, writing, log, prelude=mode.prelude, environ=environ) as process,
        ):
            os.close(writing)
            try:
                yield process, _Child(process, reading, log, limit)
            finally:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
    finally:
        os.close(reading)
