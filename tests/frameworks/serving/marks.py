"""Reports a worker's progress and CPU time to a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import process_time_ns
from typing import Any, Final, TypeAlias

SCHEDULER: Final = Path("/proc/self/schedstat")

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def marked(application: Application) -> Application:
    """Append a byte to the file APP_MARKS for each request that begins."""

    def with_mark(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        marks = os.open(os.environ["APP_MARKS"], os.O_WRONLY | os.O_APPEND)
        os.write(marks, b".")
        os.close(marks)
        return application(environ, start_response)

    return with_mark


def spent() -> dict[str, int]:
    """Return the nanoseconds that this process has run and has waited for a core."""
    if not SCHEDULER.exists():  # only Linux reports the wait: proc(5)
        return {"ran": process_time_ns(), "waited": 0}
    ran, waited, _ = SCHEDULER.read_text().split()
    return {"ran": int(ran), "waited": int(waited)}
