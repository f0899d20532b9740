"""A Celery worker process for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.frameworks.watch import Watch, until

from .settings import application

if TYPE_CHECKING:
    import signal

    from celery.result import AsyncResult

__all__ = ["Worker", "answer"]

ROOT: Final = Path(__file__).parents[3]
MODULE: Final = "tests.frameworks.working.tasks"
ANSWER_SECONDS: Final = 30  # for a task to end


def answer(result: AsyncResult, propagate: bool = True) -> Any:
    """Return a task's result, or raise its error; without `propagate`, return the error."""
    return result.get(timeout=ANSWER_SECONDS, interval=0.05, propagate=propagate)


class Worker:
    """`celery worker -P gevent` or `-P eventlet`."""

    def __init__(self, backend: str, dsn: str, folder: Path) -> None:
        self.name: Final = f"{folder.name}-{os.getpid()}"
        self._folder = folder
        self._app = application(folder, "outbox")
        self.watch: Final = Watch(dsn, self.name)
        self._log = folder / "log"
        given = {"DSN": dsn, "NAME": self.name, "FOLDER": str(folder), "BACKEND": backend}
        with self._log.open("wb") as log:
            self.process: Final = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", MODULE, "worker"),
                    *("-P", backend, "-c", "50", "-l", "INFO", "-n", self.name),
                    *("--without-gossip", "--without-mingle"),
                ],
                cwd=ROOT,
                env={**os.environ, **{f"APP_{key}": value for key, value in given.items()}},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: f"{self.name} ready" in self.log(), "the worker is ready", 40)
        except BaseException as err:
            self.close()
            raise AssertionError(self.log()) from err

    def log(self) -> str:
        return self._log.read_text()

    def send(self, task: str, *args: object, **options: Any) -> AsyncResult:
        result = self._app.send_task(f"{MODULE}.{task}", args, **options)
        self._post()
        return result

    def ask(self, task: str, *args: object, **options: Any) -> Any:
        """Run a task; return its result, or raise its error."""
        return answer(self.send(task, *args, **options))

    def terminate(self, result: AsyncResult) -> None:
        """Revoke a task that may have begun."""
        result.revoke(terminate=True)
        self._post()

    def _post(self) -> None:
        """Move the messages into the worker's folder, now that they are written completely."""
        for message in (self._folder / "outbox").iterdir():
            message.rename(self._folder / "queue" / message.name)

    def lent(self) -> int:
        """Return the number of connections that the pool has lent or is cleaning."""
        stats = self.ask("state")
        return int(stats["pool_size"] - stats["pool_available"])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill the worker, if it still runs."""
        self.process.kill()
        self.process.wait()
        self._app.close()
        self.watch.close()
