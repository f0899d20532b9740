"""The child process of one backend and mode: runs tests in order and reports each outcome."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import greenpg
from greenpg.threads import backend as plain
from greenpg_conformance.toolkit.heartbeat import calibrated
from greenpg_conformance.toolkit.leaks import descriptors, no_leaks, tasks, threads
from greenpg_conformance.toolkit.machine import clock_watch
from greenpg_conformance.toolkit.watchdog import Watchdog

from .context import Context, Surroundings
from .describe import Mode, find
from .drivers import find as find_driver
from .tests import PSYCOPG2_NAME, Skip, Test, discover

WARM_UP_SECONDS: Final = 30.0
JOBS: Final = 4  # more than any test has in threads of the library's pool at once
SETTLE_SECONDS: Final = 3.0
OURS: Final = os.path.dirname(__file__)


class Events:
    """One JSON object a line, on a pipe with no other writer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = os.getpid()

    def send(self, **event: Any) -> None:
        """Send an event to the parent; in a forked child do nothing."""
        if os.getpid() == self._owner:
            os.write(self._fd, json.dumps(event).encode() + b"\n")


class Worker:
    """Runs the tests that were ordered, in the task of the backend that calls it."""

    def __init__(self, orders: Mapping[str, Any], events: Events, watchdog: Watchdog) -> None:
        self._orders = orders
        self._events = events
        self._watchdog = watchdog
        self._around: Surroundings

    def run(self) -> None:
        """Warm up, run the tests and close what they shared."""
        self._watchdog.arm(WARM_UP_SECONDS)
        which = self._orders["backend"]
        found = find(which)
        greenpg.use(found[0])
        mode = Mode(**self._orders["mode"])
        name = f"greenpg_conformance_{os.getpid()}"
        self._around = Surroundings(which, found, mode, self._orders["dsn"], name)
        self._warm_up()
        known = {test.id: test for test in discover()}
        for name in self._orders["tests"]:
            self._run(known[name])
        self._watchdog.arm(WARM_UP_SECONDS)
        self._around.close()

    def _warm_up(self) -> None:
        """Make what lives as long as the process, so that no test seems to leave it behind."""
        backend = self._around.backend
        clock_watch()
        calibrated(backend)
        ctx = self._context(str)  # which leaves its notes at that
        with ctx.cleaned():
            event = backend.event()
            ctx.native(event.set)
            event.wait(5)
            for job in [ctx.spawn(backend.in_thread, plain.sleep, 0.02) for _ in range(JOBS)]:
                job.result()
            for tls in (False, True):
                ctx.connect(ctx.proxy(tls=tls).dsn).cursor().execute("select 1")
            self._around.idle_cpu = min(ctx.idle_cpu() for _ in range(2))
        gc.collect()
        gc.freeze()  # the baseline need not be searched after each test

    def _context(self, note: Callable[[str], object], driver: str = PSYCOPG2_NAME) -> Context:
        return Context(self._around, self._orders["seed"], note, find_driver(driver))

    def _run(self, test: Test) -> None:
        self._events.send(start=test.id)
        self._watchdog.arm(min(test.limit, self._orders["limit"]))
        began = time.monotonic()
        outcome, detail = self._outcome(test)
        self._watchdog.disarm()
        seconds = time.monotonic() - began
        self._events.send(end=test.id, outcome=outcome, detail=detail, seconds=seconds)

    def _outcome(self, test: Test) -> tuple[str, str]:
        missing = test.needs - self._around.backend.capabilities
        if missing:
            return "lacking", "no " + ", ".join(sorted(missing))
        try:
            self._perform(test)
        except Skip as reason:
            return "skip", str(reason)
        except BaseException as error:  # whatever a test lets out, the next one runs
            return "fail", _traceback_of(error)
        return "pass", ""

    def _perform(self, test: Test) -> None:
        ctx = self._context(lambda text: self._events.send(note=text), test.driver)
        sleep = self._around.backend.sleep
        probes = (descriptors, threads, tasks, self._sessions, self._around.description.registered)
        with no_leaks(*probes, settle=SETTLE_SECONDS, sleep=sleep), ctx.cleaned():
            try:
                test.run(ctx)
            except BaseException as error:
                ctx.note(_traceback_of(error))  # cleaning up may hang
                raise

    def _sessions(self) -> dict[Hashable, str]:
        return self._around.observer.sessions(self._around.application)


def _traceback_of(error: BaseException) -> str:
    """Return the traceback, with the variables of the test itself."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in report.stack:
        if not frame.filename.startswith(OURS):
            frame.locals = None
    return "".join(report.format())


def main() -> None:
    """Run the tests ordered on standard input; the mode's prelude has run before."""
    faulthandler.enable()
    orders = json.loads(sys.stdin.readline())
    events = Events(int(sys.argv[1]))
    worker = Worker(orders, events, Watchdog(lambda text: events.send(hang=text)))
    _, description = find(orders["backend"])
    description.run(worker.run)
    events.send(done=True)
