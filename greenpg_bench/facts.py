"""What a report says of where it was made: the machine, and versions."""

from __future__ import annotations

import os
import platform
import re
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psycopg2

import greenpg

DISTRIBUTIONS: Final = (
    "psycopg2-binary", "psycopg2", "psycogreen", "gevent", "eventlet", "psycopg", "asyncpg",
    "uvloop",
)  # fmt: skip
_PROCESSOR: Final = re.compile(r"^model name\s*: (.+)$", re.M)


def machine() -> str:
    """Return the system and the processor, such as "Linux x86_64, 2 cores, AMD EPYC"."""
    words = [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores"]
    with suppress(OSError):
        words += _PROCESSOR.findall(Path("/proc/cpuinfo").read_text())[:1]
    return ", ".join(words)


def versions(dsn: str) -> dict[str, str]:
    """Return the versions of Python, the server if it can be reached, and what is compared."""
    found = {"Python": platform.python_version()}
    with suppress(psycopg2.Error), closing(psycopg2.connect(dsn)) as conn:
        found["PostgreSQL"] = conn.info.parameter_status("server_version") or "unknown"
    found["greenpg"] = greenpg.version
    for name in DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
