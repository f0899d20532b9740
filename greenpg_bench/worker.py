"""The child's side of a player: prepares one job, then measures a lap for each order."""

from __future__ import annotations

import faulthandler
from typing import Any

from greenpg._helper_process import Reply, send, serve

from .drivers import DRIVERS
from .hosts import HOSTS, patch
from .model import Contender, Job, Lap

LIMIT = 120.0


class Worker:
    """Carries out the orders; one that hangs ends the process with the stacks of all threads."""

    def __init__(self) -> None:
        self._lap: Lap | None = None

    def prepare(self, workload: str, contender: dict[str, str], **job: Any) -> Reply:
        """Set the contender up; nothing it uses is imported before."""
        player = Contender(**contender)
        if DRIVERS[player.driver].patched:
            patch(HOSTS[player.host])
        # Only now: a workload may import what has to be patched first.
        from .workloads import find

        faulthandler.dump_traceback_later(LIMIT, exit=True)
        self._lap = find(workload).prepare(Job(player, **job))
        faulthandler.cancel_dump_traceback_later()
        return {}

    def lap(self) -> Reply:
        """Measure once."""
        assert self._lap is not None
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        sample = self._lap()
        faulthandler.cancel_dump_traceback_later()
        return sample


if __name__ == "__main__":
    worker = Worker()
    send({})
    serve({"prepare": worker.prepare, "lap": worker.lap})
