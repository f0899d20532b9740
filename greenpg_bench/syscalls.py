"""System calls per unit of work, counted by strace."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .player import Player

if TYPE_CHECKING:
    from .model import Job, Sample, Workload

GROUPS = {
    "send": ("sendto", "sendmsg", "write", "writev"),
    "recv": ("recvfrom", "recvmsg", "read", "readv"),
    "poll": (
        "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6",
        "getpid",  # libev looks for a fork at every turn of its loop
    ),
}  # fmt: skip


def available() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


def count(workload: Workload, job: Job) -> tuple[Sample, str]:
    """Calls per unit of work, by group, and the commonest of the others.

    A run without a lap is taken off: start-up, connecting and warming up. `calls` is all but
    the polls, which one call makes for all connections.
    """
    counts = _traced(workload.name, job, laps=1)
    counts.subtract(_traced(workload.name, job, laps=0))
    units = workload.units
    sample = {
        group: max(0, sum(counts[one] for one in names)) / units for group, names in GROUPS.items()
    }
    grouped = {name for names in GROUPS.values() for name in names}
    others = Counter({name: count for name, count in counts.items() if name not in grouped})
    sample["other"] = max(0, sum(others.values())) / units
    sample["calls"] = sample["send"] + sample["recv"] + sample["other"]
    return sample, max(others, key=lambda name: others[name], default="")


def _traced(workload: str, job: Job, laps: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "calls"
        with Player(workload, job, ("strace", "-f", "-c", "-o", str(report))) as player:
            for _ in range(laps):
                player.lap()
        return parse(report.read_text())


def parse(report: str) -> Counter[str]:
    """The number of calls by name in the table that `strace -c` writes."""
    calls: Counter[str] = Counter()
    for line in report.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] += int(fields[3])
    return calls
