"""A gunicorn process for one test."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.frameworks.watch import Watch, until

if TYPE_CHECKING:
    import signal

__all__ = ["Gunicorn"]

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
LISTENING: Final = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
_numbers = itertools.count(1)


class Gunicorn:
    """A gunicorn master with two workers; its sessions' names start with `name`."""

    def __init__(
        self, application: str, dsn: str, folder: Path, *options: str, **variables: str
    ) -> None:
        self.name: Final = f"{folder.name}-{next(_numbers)}-{os.getpid()}"
        self._marks = folder / f"marks of {self.name}"
        self._marks.touch()
        self._log = folder / f"log of {self.name}"
        self.watch: Final = Watch(dsn, self.name)
        module = f"tests.frameworks.serving.{application}"
        given = {"DSN": dsn, "NAME": self.name, "MARKS": str(self._marks), "MODULE": module}
        words = ["-c", str(HERE / "gunicorn_conf.py"), "-b", "127.0.0.1:0", *options]
        with self._log.open("wb") as log:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *words, f"{module}:app"],
                cwd=ROOT,
                env={
                    **os.environ,
                    **{f"APP_{key}": value for key, value in given.items()},
                    **variables,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.port: Final = int(until(self._listening, "gunicorn listens")[1])
            self.master: Final = psutil.Process(self.process.pid)
            until(lambda: len(self.workers()) == 2, "two workers")
        except BaseException:
            self.close()
            raise

    def _listening(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.log()
        return LISTENING.search(self.log())

    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> set[int]:
        return {child.pid for child in self.master.children()}

    def begun(self) -> int:
        """Return the number of requests that have reached the application."""
        return self._marks.stat().st_size

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill the processes that are left; none are after an orderly stop."""
        children = (
            psutil.Process(self.process.pid).children() if self.process.poll() is None else []
        )
        self.process.kill()
        for child in children:
            child.kill()
        self.process.wait()
        self.watch.close()
