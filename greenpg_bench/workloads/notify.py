"""200 subscribers of one Listener: what they cost while idle, and 1,000 notifications to each."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

from greenpg import Listener, use
from greenpg_bench.hosts import HOSTS, crew
from greenpg_bench.meter import meter
from greenpg_bench.model import LOOPS, Contender, Job, Lap, Metric, Sample, Target, Workload
from greenpg_bench.publisher import Publisher

if TYPE_CHECKING:
    from greenpg.notify import Subscription

SUBSCRIBERS, NOTIFICATIONS = 200, 1000
IDLE = 2.0


def _hear(subscription: Subscription) -> None:
    for _ in islice(subscription, NOTIFICATIONS):
        pass


def _prepare(job: Job) -> Lap:
    host = HOSTS[job.contender.host]
    use(host.backend)
    channel = f"bench_{os.getpid()}"
    listener = Listener(job.dsn)
    subscriptions = [listener.subscribe(channel) for _ in range(SUBSCRIBERS)]
    publisher = Publisher(job.dsn, channel)
    tasks = crew(host, SUBSCRIBERS)

    def deliver() -> None:
        for subscription in subscriptions:
            tasks.start(_hear, subscription)
        publisher.send(NOTIFICATIONS)
        tasks.finish()

    def measure() -> Sample:
        with meter() as idle:
            tasks.sleep(IDLE)
        with meter() as reading:
            deliver()
        return {
            "idle": idle.cpu / idle.wall * 100,
            "seconds": reading.wall,
            "cpu": reading.cpu / SUBSCRIBERS / NOTIFICATIONS * 1e6,
        }

    deliver()
    return measure


WORKLOAD = Workload(
    name="notify",
    title=f"{NOTIFICATIONS} notifications to {SUBSCRIBERS} subscribers over one connection",
    groups=(tuple(Contender("greenpg", host) for host in (*LOOPS, "threads")),),
    metrics=(
        Metric("idle", "CPU while idle, %", "{:.3f}"),
        Metric("seconds", "s until all have all", "{:.2f}"),
        Metric("cpu", "client CPU, us/delivery", "{:.2f}"),
    ),
    targets=(
        *(Target(f"greenpg/{host}", "idle", 0.1) for host in (*LOOPS, "threads")),
        *(Target(f"greenpg/{host}", "seconds", 2.0) for host in LOOPS),
    ),
    prepare=_prepare,
    units=1,
    rounds=5,
    quick=1,
)
