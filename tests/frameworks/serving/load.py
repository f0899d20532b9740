"""Crowds of HTTP clients, and the replies that they get."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from typing import Final

from .client import Client, Reply, fetch

__all__ = [
    "CROWD",
    "SIZE",
    "Load",
    "Restarting",
    "described",
    "overtakings",
    "percentile",
    "slowdown",
]

CROWD: Final = 150  # requests at once, for each worker
SIZE: Final = 20  # connections of each worker's pool
ROUNDS: Final = 4
SLOW_SECONDS: Final = 0.2


async def crowd(port: int, size: int) -> dict[int, list[Client]]:
    """Connect until each worker has `size` clients; close the surplus ones."""
    clients: dict[int, list[Client]] = defaultdict(list)
    while len(clients) < 2 or any(len(group) < size for group in clients.values()):
        client = await Client.connect(port)
        pid = (await client.get("/quick")).data["pid"]
        if len(clients[pid]) < size:
            clients[pid].append(client)
        else:
            await client.close()
    return clients


class Load:
    """The replies to a crowd of slow requests, and to quick ones beside them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.slow: dict[int, list[Reply]] = {}
        self.quick: dict[int, list[Reply]] = {}

    async def run(self) -> None:
        """Request slow pages in rounds, with a separate crowd of clients for each worker."""
        groups = await crowd(self._port, CROWD + 1)
        try:
            await asyncio.gather(*(self._ask(pid, group) for pid, group in groups.items()))
        finally:
            for client in [client for group in groups.values() for client in group]:
                await client.close()

    async def _ask(self, pid: int, clients: list[Client]) -> None:
        stop = asyncio.Event()
        watch = asyncio.create_task(quick_ones(clients[CROWD], stop))
        self.slow[pid] = await slow_ones(clients[:CROWD])
        stop.set()
        self.quick[pid] = await watch

    def waits(self) -> list[list[float]]:
        """Return for each worker the seconds that its requests waited for a connection.

        The first and the last round are left out, as their queue is not full.
        """
        return [
            [reply.data["got"] - reply.data["began"] for reply in replies[CROWD:-CROWD]]
            for replies in self.slow.values()
        ]


async def quick_ones(client: Client, stop: asyncio.Event) -> list[Reply]:
    """Request a page that uses no database, repeatedly until `stop`."""
    replies = []
    while not stop.is_set():
        replies.append(await client.get("/quick"))
        await asyncio.sleep(0.02)
    return replies


def slowdown(replies: list[Reply]) -> float:
    """Return the factor by which a worker was slowed down because others used its core."""
    first, last = replies[0].data, replies[-1].data
    ran = last["ran"] - first["ran"]
    return float((ran + last["waited"] - first["waited"]) / ran)


async def slow_ones(clients: list[Client]) -> list[Reply]:
    """Return the replies of all rounds, round by round.

    The clients start spread over a round: a burst would measure how fast Python parses requests.
    """
    step = SLOW_SECONDS / SIZE
    rounds = await asyncio.gather(
        *(repeat(client, step * place) for place, client in enumerate(clients))
    )
    return [reply for one in zip(*rounds, strict=True) for reply in one]


async def repeat(client: Client, delay: float) -> list[Reply]:
    await asyncio.sleep(delay)
    return [await client.get(f"/sleep/{SLOW_SECONDS}") for _ in range(ROUNDS)]


def overtakings(replies: list[Reply]) -> int:
    """Return the largest number of later requests that were served before a waiting one."""
    spans = sorted((reply.data["began"], reply.data["got"]) for reply in replies)
    served: list[float] = [got for _, got in spans]
    return max(sum(got < mine for got in served[place + 1 :]) for place, mine in enumerate(served))


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which `percent` of the values lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def described(name: str, seconds: list[float]) -> str:
    """Return the percentiles as text."""
    figures = {percent: 1000 * percentile(seconds, percent) for percent in (50, 95, 99)}
    words = ", ".join(f"{value:.1f} ms p{percent}" for percent, value in figures.items())
    return f"{name}: {words}, {1000 * max(seconds):.1f} ms the longest"


class Restarting:
    """Clients that make a new connection for each request, while a block runs."""

    def __init__(self, port: int, path: str, count: int) -> None:
        self.replies: list[Reply] = []
        self._port = port
        self._path = path
        self._stopped = False
        self._jobs = [self._ask() for _ in range(count)]

    async def _ask(self) -> None:
        while not self._stopped:
            self.replies.append(await fetch(self._port, self._path))

    def pids(self) -> set[int]:
        """Return the ids of the processes that have answered so far."""
        return {reply.data["pid"] for reply in self.replies if reply.status == 200}

    async def __aenter__(self) -> Restarting:
        self._running = asyncio.gather(*self._jobs)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await self._running
