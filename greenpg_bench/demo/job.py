"""The job of one run of the demo."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

DRIVERS: Final = ("greenpg", "psycogreen", "psycopg2")
OF_PSYCOGREEN: Final = ("eventlet", "gevent")  # the backends that it has a wait callback for
APPLICATION: Final = "greenpg demo"
KILLED: Final = 50  # tasks in the second act
TICK: Final = 0.01  # seconds
SHORTEST, MEAN, LONGEST = 0.01, 0.02, 0.1  # seconds of a query


@dataclass(frozen=True)
class Job:
    """A backend, a driver, and the numbers of tasks and of the connections that they share.

    Every task runs one query; the queries' lengths differ, but are the same in every run.
    """

    backend: str
    driver: str
    dsn: str = field(repr=False)
    tasks: int = 200
    connections: int = 10
    kills: bool = False  # the tasks are killed in the midst of their queries

    @property
    def name(self) -> str:
        """The driver and the backend."""
        return f"{self.driver} on {self.backend}"

    @property
    def exists(self) -> bool:
        """Whether there is such a driver for the backend."""
        return self.driver != "psycogreen" or self.backend in OF_PSYCOGREEN

    @cached_property
    def lengths(self) -> list[float]:
        """The seconds that each task's query takes in the server."""
        chance = random.Random(1)
        return [
            round(min(LONGEST, SHORTEST + chance.expovariate(1 / (MEAN - SHORTEST))), 3)
            for _ in range(self.tasks)
        ]

    def lane(self, task: int) -> int:
        """The connection that a task uses."""
        return task % self.connections

    @property
    def in_a_row(self) -> float:
        """The seconds that all queries take one after another."""
        return sum(self.lengths)

    @property
    def at_best(self) -> float:
        """The seconds that the busiest connection needs."""
        return max(sum(self.lengths[lane :: self.connections]) for lane in range(self.connections))
