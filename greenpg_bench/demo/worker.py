"""The process that runs the job: `python -m greenpg_bench.demo.worker`, the job on standard input.

Each backend runs in a process of its own, and stock psycopg2 in one without greenpg's callback.
"""

from __future__ import annotations

import json
import os
import sys
from threading import Thread
from time import monotonic
from typing import Any

import psycopg2

from greenpg.backend import load
from greenpg.errors import BackendError

from .drivers import connected, prepare, turns
from .job import TICK, Job
from .kills import kill_all


class Crew:
    """The tasks of a job, their connections and the ticker beside them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._backend = load(job.backend)
        self._connections: list[Any] = []
        self._turns = [turns(job) for _ in range(job.connections)]
        self._errors: list[Exception] = []
        self._ticking = False
        self._over = False

    def work(self) -> None:
        """Run the job; raise the first task's error."""
        try:
            for _ in range(self._job.connections):
                self._connections.append(connected(self._job, self._backend))
            self._kill() if self._job.kills else self._work_beside_ticker()
        finally:
            for conn in self._connections:
                conn.close()
        if self._errors:
            raise self._errors[0]

    def _work_beside_ticker(self) -> None:
        ticker = self._backend.spawn(self._tick)
        while not self._ticking:
            self._backend.sleep(TICK)
        send("start")
        for task in [self._backend.spawn(self._query, n) for n in range(self._job.tasks)]:
            task.join()
        send("over")
        self._over = True
        ticker.join()

    def _kill(self) -> None:
        observer = connected(self._job, self._backend)
        usable, running = kill_all(
            self._backend, observer, self._connections, self._run, self._job.tasks
        )
        observer.close()
        send("usable", usable)
        send("running", running)

    def _tick(self) -> None:
        while not self._over:
            self._backend.sleep(TICK)
            self._ticking = True
            send("tick")

    def _query(self, task: int) -> None:
        try:
            lane = self._job.lane(task)
            send("begin", lane)
            self._run(task, self._job.lengths[task])
            send("end", lane)
        except Exception as err:  # the task ends here; `work` raises the error
            self._errors.append(err)

    def _run(self, task: int, seconds: float) -> None:
        lane = self._job.lane(task)
        with self._turns[lane], self._connections[lane].cursor() as cur:
            cur.execute("select pg_sleep(%s)", (seconds,))


def send(what: str, lane: int = 0, text: str = "") -> None:
    """Send an event to the parent in one write, so that lines of threads do not mix."""
    event = {"what": what, "at": monotonic(), "lane": lane, "text": text}
    os.write(1, json.dumps(event).encode() + b"\n")


def _end_with_parent() -> None:
    """End at once when standard input does: the parent has ended or closed it."""
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Run the job that standard input describes."""
    job = Job(**json.loads(sys.stdin.readline()))
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        prepare(job)
        Crew(job).work()
    except BackendError as err:
        send("missing", text=str(err))
    except psycopg2.Error as err:
        send("failed", text=str(err).strip())


if __name__ == "__main__":
    main()
