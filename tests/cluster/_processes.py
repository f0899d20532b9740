"""What a cluster needs on this machine, and how its servers are started and ended."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = {  # Debian's, by program
    "patroni": "patroni",
    "etcd": "etcd-server",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
}
USER: Final = "postgres"  # Debian's; servers refuse root


class ClusterError(RuntimeError):
    """The cluster does not do what a run needs."""


def found() -> dict[str, Path]:
    """Return the programs that are here."""
    directories = ["/usr/bin", "/usr/sbin", *map(str, _servers())]
    path = os.pathsep.join([os.environ.get("PATH", ""), *directories])
    places = {name: shutil.which(name, path=path) for name in PACKAGES}
    return {name: Path(place).resolve() for name, place in places.items() if place}


def _servers() -> Iterator[Path]:
    """Yield the directories of PostgreSQL's releases, the newest first."""
    releases = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(releases, key=lambda path: float(path.parent.name), reverse=True)


def identity() -> dict[str, Any]:
    """Return the arguments of Popen for a server's user: this one, if it is not root."""
    if os.geteuid() != 0:
        return {}
    owner = pwd.getpwnam(USER)
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def start(log: Path, *command: str | Path) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own: Ctrl-C is for the run, which ends its servers."""
    unwanted = ("PG", "PATRONI", "ETCD", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    with log.open("ab") as output:
        return subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
            **identity(),
        )


def give(path: Path) -> Path:
    """Let the servers' user own a file or directory that others cannot read."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    owner = identity()
    if owner:
        os.chown(path, owner["user"], owner["group"])
    return path


def pid_in(path: Path) -> int | None:
    """Return the process id in the first line of a file; None if no such process runs."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(path.read_text().split()[0])
        os.kill(pid, 0)
        return pid
    return None


def children(pid: int) -> list[int]:
    """Return a process's children (proc(5))."""
    with suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def kill(*pids: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes, by their ids."""
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def await_true(true: Callable[[], object], seconds: float, what: str) -> None:
    """Ask until it is true; ClusterError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
