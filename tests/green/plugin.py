"""A pytest plug-in: every test function runs in a green thread of the chosen backend."""

from __future__ import annotations

import faulthandler
import traceback
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

import greenpg
from greenpg.backend import Backend, current
from greenpg_conformance.toolkit.jobs import Job

PATCHED: Final = pytest.StashKey[bool]()
DB: Final = Path(__file__).parents[1] / "db"
TOOLS: Final = (DB / "bench", DB / "conformance", DB / "embedded")
COARSE_TIMERS: Final = "ignore:libuv only supports millisecond timer resolution"
LIMIT: Final = 35.0
STDERR: Final = "Captured stderr"
TRACEBACK: Final = "Traceback (most recent call last)"
FROZEN: Final = 10.0  # beyond the limit: the loop itself stands still, print stacks and exit


class GreenThreads:
    """`patched` calls the plug-in's `patch_psycopg()`, else the backend is chosen by `use`."""

    def __init__(self, name: str, *, patched: bool) -> None:
        self.patched = patched
        self._name = name
        self._backend: Backend

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[PATCHED] = self.patched
        config.addinivalue_line("filterwarnings", COARSE_TIMERS)
        if self.patched:
            import_module(f"greenpg_{self._name}").patch_psycopg()
            self._backend = current()
        else:
            self._backend = greenpg.use(self._name)
        _warm_up(self._backend)

    def pytest_report_header(self) -> str:
        return f"backend: {self._name}, {'monkey-patched' if self.patched else 'explicit'}"

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Ignore the tests of tools without support for green threads."""
        return True if collection_path in TOOLS else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        limit = _limit(pyfuncitem)
        file = pyfuncitem.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(limit + FROZEN, exit=True, file=file)
        _outcome(Job(self._backend, lambda: pyfuncitem.obj(**given), ()), limit)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        printed = "".join(text for name, text in report.sections if name.startswith(STDERR))
        if report.when == "teardown" and report.passed and TRACEBACK in printed:
            report.outcome = "failed"
            report.longrepr = f"the event loop reported an error:\n{printed}"
        return report


def _outcome(job: Job, limit: float) -> None:
    """Wait for the end and raise the function's error, or report where it hangs."""
    try:
        job.result(limit)
    except AssertionError:
        if job.ended:
            raise
        stack = "".join(traceback.format_stack(getattr(job.task, "gr_frame", None)))
        job.kill()
        pytest.fail(f"not over in {limit:g} s; it waits here:\n{stack}", pytrace=False)


def _limit(item: pytest.Item) -> float:
    """Return a limit before that of pytest-timeout, which does not support tasks."""
    marker = item.get_closest_marker("timeout")
    if marker is None:
        return LIMIT
    return 0.9 * float(marker.args[0] if marker.args else marker.kwargs["timeout"])


def _warm_up(backend: Backend) -> None:
    """Create what lives as long as the process, so that the leak check blames no test."""
    event = backend.event()
    backend.spawn(lambda: backend.in_thread(event.set))
    event.wait(5)
