"""greenpg in applications under gunicorn with two gevent workers and --preload."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import pytest

from .serving.client import Reply, fetch
from .serving.load import (
    CROWD,
    SIZE,
    Load,
    Restarting,
    described,
    overtakings,
    percentile,
    slowdown,
)
from .serving.server import Gunicorn
from .watch import until

if TYPE_CHECKING:
    from pathlib import Path

QUICK_SECONDS: Final = 0.020  # for the median quick page of a worker that is not slowed down

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def serve(dsn: str, tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Start gunicorn with an application of tests/frameworks/serving."""
    made: list[Gunicorn] = []

    def served(application: str, *options: str, **variables: str) -> Gunicorn:
        made.append(Gunicorn(application, dsn, tmp_path, *options, **variables))
        return made[-1]

    yield served
    for gunicorn in made:
        gunicorn.close()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Print figures, whether the test passes or fails."""

    def said(*lines: str) -> None:
        with capsys.disabled():
            print("", *lines, sep="\n  ")

    return said


@pytest.mark.parametrize(
    ("application", "variables"),
    [("flask_app", {}), ("flask_app", {"APP_LATE": "1"}), ("django_app", {})],
    ids=["flask", "flask_patched_late", "django"],
)
def test_150_requests_per_worker_share_20_connections_fairly(serve, say, application, variables):
    """Fair: fewer later requests overtake any request than the pool has connections."""
    gunicorn = serve(application, **variables)
    load = Load(gunicorn.port)

    asyncio.run(load.run())

    for waits in load.waits():
        say(described("waits for a connection", waits))
    for pid, replies in load.slow.items():
        assert {(reply.status, reply.data["pid"]) for reply in replies} == {(200, pid)}
        assert overtakings(replies) < SIZE
    for replies in load.quick.values():
        seconds = [reply.seconds for reply in replies]
        slower = slowdown(replies)
        say(described("quick pages", seconds), f"... of a worker slowed down {slower:.1f} times")
        assert percentile(seconds, 50) < QUICK_SECONDS * slower
    assert sum(gunicorn.watch.sessions().values()) <= 2 * SIZE


async def reload_under_load(gunicorn: Gunicorn) -> list[Reply]:
    """Restart the workers twice while requests arrive; return all replies."""
    async with Restarting(gunicorn.port, "/sleep/0.05", 2 * CROWD // 3) as load:
        for _ in range(2):
            await restart(gunicorn, load)
        await later(lambda: gunicorn.workers() <= load.pids(), "both new workers answer")
    return load.replies


async def restart(gunicorn: Gunicorn, load: Restarting) -> None:
    old = gunicorn.workers()
    await later(lambda: old <= load.pids(), "both workers answer")
    gunicorn.signal(signal.SIGHUP)
    await later(lambda: not old & gunicorn.workers(), "the old workers are gone")


async def later(true: Callable[[], Any], why: str) -> None:
    """Wait until `true()` while the clients go on."""
    await asyncio.to_thread(until, true, why)


@pytest.mark.parametrize("application", ["flask_app", "django_app"])
def test_reload_loses_no_request_and_leaves_no_session(serve, application):
    gunicorn = serve(application)

    replies = asyncio.run(reload_under_load(gunicorn))

    assert {reply.status for reply in replies} == {200}
    assert len({reply.data["pid"] for reply in replies}) == 6
    if application == "flask_app":
        now = {f"{gunicorn.name}-{pid}" for pid in gunicorn.workers()}
        until(lambda: gunicorn.watch.sessions().keys() <= now, "sessions of old workers end")


async def ask_then(
    gunicorn: Gunicorn, path: str, count: int, act: Callable[[], None], running: int = 0
) -> list[Any]:
    """Call `act` once `count` requests have reached the application; return their outcomes.

    If `running` is given, wait before that until so many queries run at once; only queries that
    never end are certain to.
    """
    jobs = [asyncio.create_task(fetch(gunicorn.port, path)) for _ in range(count)]
    await later(lambda: gunicorn.begun() == count, f"{count} requests in flight")
    await later(lambda: gunicorn.watch.busy() >= running, "queries run")
    act()
    return await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize("application", ["flask_app", "django_app"])
def test_stop_loses_no_request_in_flight_and_leaves_no_session(serve, application):
    gunicorn = serve(application)

    replies = asyncio.run(
        ask_then(gunicorn, "/sleep/0.3", 3 * SIZE, lambda: gunicorn.signal(signal.SIGTERM))
    )

    assert [getattr(reply, "status", reply) for reply in replies] == [200] * 3 * SIZE
    assert gunicorn.process.wait(30) == 0
    until(lambda: not gunicorn.watch.sessions(), "all sessions end")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_dropped_requests_leave_no_query_running(serve, how):
    gunicorn = serve("flask_app", "--graceful-timeout", "1")

    outcomes = asyncio.run(
        ask_then(gunicorn, "/sleep/300", 8, lambda: gunicorn.signal(signal.Signals[how]), running=8)
    )

    assert {getattr(outcome, "status", 500) for outcome in outcomes} == {500}
    until(lambda: not gunicorn.watch.busy(), "no query runs")
    assert how == "SIGHUP" or gunicorn.process.wait(30) == 0
    until(lambda: not gunicorn.watch.sessions(), "all sessions end")


def test_query_may_last_longer_than_a_worker_may_stand_still(serve):
    gunicorn = serve("flask_app", "--timeout", "2")
    workers = gunicorn.workers()

    reply = asyncio.run(fetch(gunicorn.port, "/sleep/5"))

    assert reply.status == 200
    assert gunicorn.workers() == workers


@pytest.mark.parametrize("patched", [{}, {"APP_LATE": "1"}], ids=["patched", "patched_late"])
def test_pool_made_in_the_master_starts_nothing_there(serve, patched):
    gunicorn = serve("flask_app", **patched)
    before = gunicorn.watch.sessions()

    status = asyncio.run(fetch(gunicorn.port, "/sleep/0.0")).status

    assert before == {}
    assert status == 200
    assert f"{gunicorn.name}-{gunicorn.master.pid}" not in gunicorn.watch.sessions()
    assert gunicorn.master.num_threads() == 1


def test_pool_used_in_the_master_serves_the_workers(serve):
    gunicorn = serve("flask_app", APP_USED_EARLY="1")

    replies = asyncio.run(ask_then(gunicorn, "/sleep/0.05", 3 * SIZE, lambda: None))
    gunicorn.signal(signal.SIGTERM)

    assert {reply.status for reply in replies} == {200}
    gunicorn.process.wait(30)
    until(lambda: not gunicorn.watch.sessions(), "all sessions end")


@pytest.mark.parametrize("patched", [{}, {"APP_LATE": "1"}], ids=["patched", "patched_late"])
def test_mounted_monitor_follows_its_worker(serve, patched):
    gunicorn = serve("flask_app", **patched)

    with urlopen(f"http://127.0.0.1:{gunicorn.port}/ops/events", timeout=10) as stream:
        shown = [json.loads(line.removeprefix(b"data: ")) for line in islice(stream, 0, 6, 2)]
        replies = asyncio.run(ask(gunicorn.port, "/sleep/0.01", SIZE))
        last = json.loads(next(stream).removeprefix(b"data: "))

    assert {reply.status for reply in replies} == {200}
    numbers = [event["tick"] for event in shown]
    assert numbers == [numbers[0] + step for step in range(3)]
    assert last["process"]["backend"] == "gevent"
    assert {event["process"]["pid"] for event in [*shown, last]} < gunicorn.workers()


async def ask(port: int, path: str, count: int) -> list[Reply]:
    """Return the replies to so many requests at once."""
    return await asyncio.gather(*(fetch(port, path) for _ in range(count)))
