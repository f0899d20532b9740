"""The argument of each test: the backend, a server, and helpers that clean up after it."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from psycopg2.extensions import make_dsn

from greenpg_conformance.toolkit.heartbeat import Heartbeat, heartbeat
from greenpg_conformance.toolkit.jobs import Job, NativeJob
from greenpg_conformance.toolkit.leaks import descriptors
from greenpg_conformance.toolkit.machine import Patience
from greenpg_conformance.toolkit.observer import Observer
from greenpg_conformance.toolkit.proxy import Proxy

from .drivers import PSYCOPG2, Driver
from .tests import Skip

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from .describe import Description, Mode

SECONDS: Final = 10.0
PROGRAM_SECONDS: Final = 30.0  # to start, on a machine that may be busy
TICK: Final = 0.002
IDLE_SHARE: Final = 0.005
IDLE_WINDOW: Final = 0.2
IDLE_LONGEST: Final = 2.0
PROGRAM: Final = """{prelude}
import os
import warnings
import greenpg
def backend():
    from greenpg_conformance.harness.describe import find
    return find({backend!r})[0]
def connect(dsn=os.environ["GREENPG_DSN"], plain=greenpg.connect):
    return plain(dsn, backend=backend())
{over}"""
OVER: Final = """
def connect(dsn=os.environ["GREENPG_DSN"]):
    from greenpg_conformance.harness.drivers import find
    return find({driver!r}).connect(dsn, backend=backend())
"""


class Surroundings:
    """What the tests of one child process share."""

    def __init__(
        self, which: str, found: tuple[Backend, Description], mode: Mode, dsn: str, name: str
    ) -> None:
        self.which = which
        self.backend, self.description = found
        self.mode = mode
        self.application = name
        self.dsn = make_dsn(dsn, application_name=name)
        self.observer = Observer(make_dsn(dsn, application_name=f"{name}-observer"))
        self.idle_cpu = 0.0  # what a window costs while nothing of ours is there
        self._proxies: dict[bool, Proxy] = {}

    def proxy(self, tls: bool) -> Proxy:
        """Return the process's proxy, one for plain and one for TLS, started on first need."""
        if tls not in self._proxies:
            self._proxies[tls] = Proxy(self.dsn, tls=tls)
        return self._proxies[tls]

    def refresh(self) -> None:
        """Let the proxies pass everything again."""
        for proxy in self._proxies.values():
            proxy.flow()

    def close(self) -> None:
        """Close what the process holds."""
        self.observer.close()
        for proxy in self._proxies.values():
            proxy.close()


class Context:
    """One test's backend, server and helpers; its tasks and connections end with the test."""

    def __init__(
        self,
        around: Surroundings,
        seed: int,
        note: Callable[[str], object],
        driver: Driver = PSYCOPG2,
    ) -> None:
        self.around = around
        self.driver = driver
        self.backend = around.backend
        self.description = around.description
        self.dsn = around.dsn
        self.name = around.application  # no other process has it: for channels and the like
        self.server = around.observer
        self.random = random.Random(seed)
        self.note = note
        self._jobs: list[Job] = []
        self._connections: list[Any] = []

    def connect(self, dsn: str | None = None, **options: Any) -> Any:
        """Return a connection of the driver's; `autocommit=True` sets that too."""
        autocommit = options.pop("autocommit", False)
        options.setdefault("backend", self.backend)
        conn = self.driver.connect(dsn or self.dsn, **options)
        self._connections.append(conn)
        if autocommit:
            conn.autocommit = True
        return conn

    def proxy(self, *, tls: bool = False) -> Proxy:
        """Return a proxy before the server, which passes everything until a method changes that."""
        return self.around.proxy(tls)

    def busy(self, conn: Any) -> None:
        """Wait until the server runs a statement of this connection."""
        pid = conn.info.backend_pid
        self.wait_until(lambda: self.server.is_busy(pid), f"session {pid} is busy")

    def spawn(self, fn: Callable[..., Any], *args: object) -> Job:
        """Run a function in a task."""
        self._jobs.append(Job(self.backend, fn, args))
        return self._jobs[-1]

    def native(self, fn: Callable[..., Any], *args: object) -> Job:
        """Run a function in an OS thread, out of reach of monkey-patching."""
        ends = self.description.hub_of_thread_ends
        self._jobs.append(NativeJob(self.backend, fn, args, ends))
        return self._jobs[-1]

    def in_hub(self, fn: Callable[[], Any]) -> Any:
        """Call a function in the hub; return or raise what it did."""
        enter = self.description.in_hub
        if enter is None:
            raise Skip("its conformance description has no in_hub")
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append((fn(), None))
            except BaseException as error:  # the loop is no place for it
                outcome.append((None, error))

        enter(call)
        self.wait_until(lambda: bool(outcome), "the event loop has called the function")
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def under_fire(self, fn: Callable[[], object]) -> None:
        """Call a function under a timeout that may or may not expire in it."""
        timeout: Any = self.timeout(self.random.uniform(0, 0.004))
        try:
            with timeout:
                fn()
        except BaseException as error:
            if error is not timeout:
                raise

    def timeout(self, seconds: float) -> AbstractContextManager[Any]:
        """Return the library's own timeout, for a with block."""
        if self.description.timeout is None:
            raise Skip("its conformance description has no timeout")
        return self.description.timeout(seconds)

    def heartbeat(self, limit: float | None = None) -> AbstractContextManager[Heartbeat]:
        """Fail if the block holds up another task."""
        return heartbeat(self.backend, limit)

    def wait_until(
        self, holds: Callable[[], object], what: str = "", seconds: float = SECONDS
    ) -> None:
        """Let other tasks run until something holds, and fail the test if it never does."""
        patience = Patience(seconds)
        while not holds():
            assert patience.left(), f"not within {seconds:g} s: {what or holds}"
            self.backend.sleep(TICK)

    def soon(self, seconds: float, dsn: str | None = None) -> float:
        """Return the seconds, but no fewer than three connects take, busy as the machine is."""
        began = time.monotonic()
        self.connect(dsn).cursor().execute("select 1")
        return max(seconds, 3 * (time.monotonic() - began))

    def idle_cpu(self, seconds: float = IDLE_WINDOW) -> float:
        """Return the CPU seconds that the process spends while this task sleeps."""
        before = time.process_time()
        self.backend.sleep(seconds)
        return time.process_time() - before

    def stays_idle(self) -> None:
        """Fail if an idle second costs more than 5 ms of CPU.

        What spins does so for as long as one looks; noise does not, so a doubt is looked at
        for twice as long.
        """
        told, window = list[str](), IDLE_WINDOW
        while (cost := self.idle_cpu(window)) > self.around.idle_cpu + IDLE_SHARE * window:
            told.append(f"{cost * 1000:.1f} in {window * 1000:.0f}")
            window *= 2
            assert window < IDLE_LONGEST, f"ms of CPU in ms of idleness: {', '.join(told)}"

    def registered(self) -> Mapping[Hashable, str]:
        """Return what is registered with the event loop."""
        return self.description.registered()

    def descriptors(self) -> Mapping[Hashable, str]:
        """Return the open descriptors of this process."""
        return descriptors()

    @property
    def _sockets(self) -> str:
        if self.description.sockets is None:
            raise Skip("its conformance description has no sockets")
        return self.description.sockets

    def sockets(self) -> Any:
        """Return the module of the library's own sockets."""
        return importlib.import_module(self._sockets)

    def select(self) -> Any:
        """Return the library's own select module, which stands beside its sockets."""
        name = self._sockets.removesuffix("socket") + "select"
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as err:
            raise Skip(f"there is no module {name}") from err

    def python(self, *lines: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run lines in a new Python, after those that the mode begins with.

        There is `backend()`, which returns the backend, and `connect()`, which uses it.
        """
        over = "" if self.driver is PSYCOPG2 else OVER.format(driver=self.driver.name)
        mode = self.around.mode
        program = PROGRAM.format(prelude=mode.prelude, backend=self.around.which, over=over)
        variables = {**os.environ, "GREENPG_DSN": self.dsn, **environ}  # others see arguments
        command = [sys.executable, "-c", "\n".join((program, *lines))]
        kept: Any = {"capture_output": True, "text": True, "timeout": PROGRAM_SECONDS}
        return subprocess.run(command, env=variables, check=False, **kept)

    def skip(self, reason: str) -> None:
        """Give up for want of something that the reason names."""
        raise Skip(reason)

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """End the tasks and close the connections after the block, however it ends."""
        try:
            yield
        finally:
            for job in self._jobs:
                job.kill()
            for job in self._jobs:
                job.join()
            for conn in self._connections:
                with suppress(self.driver.error):
                    conn.close()
            self._jobs.clear()
            self._connections.clear()
            self.around.refresh()
