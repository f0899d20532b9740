"""Notifications: none lost, none out of order, and nothing left of who listened."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import greenpg
from greenpg import InterfaceError, Listener, Missed
from greenpg_conformance.harness.tests import limit, needs, over_psycopg, raises
from greenpg_conformance.toolkit.internals import waits_for_input
from greenpg_conformance.toolkit.machine import Stopwatch

from ._steps import ask, finish, kill_sometime
from .forks import Child

if TYPE_CHECKING:
    from greenpg.notify import Subscription
    from greenpg_conformance.harness.context import Context

SUBSCRIBERS: Final = 200
NOTIFICATIONS: Final = 3000
HEARD_BY_MANY: Final = 900
CHANNELS: Final = 3
INTERRUPTS: Final = 150
CUTS: Final = 6


def _channel(ctx: Context, number: int = 0) -> str:
    return f"{ctx.name}-{number}"


def _send(ctx: Context, first: int, last: int, channels: int = 1) -> None:
    """Send the numbers from first to last, over so many channels in turn."""
    ctx.server.ask(
        "select count(pg_notify(%s || '-' || i %% %s, i::text)) from generate_series(%s, %s) i",
        ctx.name, channels, first, last,
    )  # fmt: skip


def _numbers(items: Any) -> list[int]:
    return [int(item.payload) for item in items]


def _listener(ctx: Context, dsn: str | None = None, **options: Any) -> Listener:
    return Listener(dsn or ctx.dsn, driver=ctx.driver.name, backend=ctx.backend, **options)


def _pid(listener: Listener) -> Any:
    assert listener._connection is not None
    return listener._connection._conn.info.backend_pid


@limit(60)
@over_psycopg()
def test_many_subscribers_hear_everything_in_order(ctx: Context) -> None:
    ready: list[int] = []

    def subscribe(number: int) -> list[int]:
        with listener.subscribe(_channel(ctx, number % CHANNELS)) as subscription:
            ready.append(number)
            return _numbers(islice(subscription, HEARD_BY_MANY // CHANNELS))

    with _listener(ctx) as listener:
        jobs = [ctx.spawn(subscribe, number) for number in range(SUBSCRIBERS)]
        ctx.wait_until(lambda: len(ready) == SUBSCRIBERS, "all have subscribed")

        for first in range(0, HEARD_BY_MANY, 100):
            _send(ctx, first, first + 99, CHANNELS)

        for number, job in enumerate(jobs):
            expected = list(range(number % CHANNELS, HEARD_BY_MANY, CHANNELS))
            assert job.result(30) == expected


@over_psycopg()
def test_others_run_while_a_burst_is_delivered(ctx: Context) -> None:
    with _listener(ctx) as listener:
        subscriptions = [listener.subscribe(_channel(ctx)) for _ in range(50)]
        sending = "select count(pg_notify(%s, i::text)) from generate_series(1, 2000) i"

        with ctx.heartbeat():
            ask(ctx.connect(autocommit=True), sending, _channel(ctx))  # the observer would block
            for subscription in subscriptions:
                assert len(list(islice(subscription, 2000))) == 2000


def test_listen_costs_nothing_while_idle(ctx: Context) -> None:
    conn = ctx.connect()
    job = ctx.spawn(lambda: next(conn.listen(_channel(ctx))))
    ctx.wait_until(lambda: waits_for_input(conn), "it listens")

    ctx.stays_idle()

    conn.close()
    with raises(InterfaceError):
        job.result()


@over_psycopg()
def test_listener_costs_nothing_while_idle(ctx: Context) -> None:
    with _listener(ctx) as listener:
        job = ctx.spawn(list, listener.subscribe(_channel(ctx)))

        ctx.stays_idle()

        listener.close()
        assert job.result() == []


@needs("kill")
@limit(60)
@over_psycopg()
def test_random_timeouts_lose_no_notification(ctx: Context) -> None:
    got: list[int] = []

    def collect() -> None:
        for item in subscription:
            got.extend(_numbers([item]))
            if len(got) == NOTIFICATIONS:
                return

    def insist() -> None:
        while len(got) < NOTIFICATIONS:
            ctx.under_fire(collect)

    with _listener(ctx) as listener, listener.subscribe(_channel(ctx)) as subscription:
        job = ctx.spawn(insist)
        for first in range(0, NOTIFICATIONS, 30):
            _send(ctx, first, first + 29)
            ctx.backend.sleep(0.002)
        job.result(30)

    assert got == list(range(NOTIFICATIONS))


@needs("kill")
@limit(60)
def test_random_timeouts_leave_listen_in_order(ctx: Context) -> None:
    """What a stopped iteration did not yield stays in `conn.notifies`; no channel stays."""
    conn = ctx.connect(autocommit=True)
    conn.cursor().execute(f'listen "{_channel(ctx)}"')
    got: list[int] = []

    def collect() -> None:
        for item in conn.listen(_channel(ctx)):
            got.extend(_numbers([item]))

    for first in range(0, INTERRUPTS):
        _send(ctx, first, first)
        ctx.under_fire(collect)
        got.extend(_numbers(conn.notifies))
        conn.notifies.clear()
    ask(conn)
    got.extend(_numbers(conn.notifies))

    assert got == list(range(INTERRUPTS))
    assert _listened(conn) == [_channel(ctx)]


def _listened(conn: Any) -> Any:
    return ask(conn, "select array(select pg_listening_channels())")


@needs("kill")
@limit(60)
@over_psycopg()
def test_killed_subscribers_leave_nothing(ctx: Context) -> None:
    with _listener(ctx) as listener:
        for _ in range(INTERRUPTS):
            kill_sometime(ctx, lambda: list(listener.subscribe(_channel(ctx), "other")))

        ctx.wait_until(lambda: not listener._inboxes, "nobody is subscribed")
        with listener.subscribe(_channel(ctx)) as subscription:
            _send(ctx, 7, 7)
            assert _numbers(islice(subscription, 1)) == [7]


@needs("kill")
@limit(60)
def test_killed_listeners_leave_nothing(ctx: Context) -> None:
    conn = ctx.connect(autocommit=True)
    for _ in range(INTERRUPTS):
        kill_sometime(ctx, lambda: list(conn.listen(_channel(ctx), "other")))

    assert _listened(conn) == []
    assert not greenpg.ConnectionLock(conn).locked()


@limit(60)
@over_psycopg()
def test_lost_connections_are_told_and_nothing_else_is_lost(ctx: Context) -> None:
    """After each marker come all numbers that were sent after it was seen."""
    with _listener(ctx) as listener:
        subscriptions = [listener.subscribe(_channel(ctx)) for _ in range(20)]
        for cut in range(CUTS):
            ctx.server.terminate(_pid(listener))
            for subscription in subscriptions:
                assert subscription.get(10) == Missed(None)

            _send(ctx, 100 * cut, 100 * cut + 99)

            for subscription in subscriptions:
                found = _numbers(islice(subscription, 100))
                assert found == list(range(100 * cut, 100 * cut + 100))


@over_psycopg()
def test_half_open_link_is_found_out(ctx: Context) -> None:
    proxy = ctx.proxy()
    with _listener(ctx, proxy.dsn, heartbeat=0.1, patience=0.3) as listener:
        subscription = listener.subscribe(_channel(ctx))
        watch = Stopwatch()
        with ctx.heartbeat():
            proxy.stall(scope="present")
            assert subscription.get(10) == Missed(None)

        assert watch.seconds() < 5
        _send(ctx, 1, 1)
        assert _numbers(islice(subscription, 1)) == [1]


@needs("hub")
@over_psycopg()
def test_closing_in_the_hub_waits_for_nothing(ctx: Context) -> None:
    listener = _listener(ctx)
    subscription = listener.subscribe(_channel(ctx))
    job = ctx.spawn(list, listener.subscribe(_channel(ctx)))
    pid = _pid(listener)

    for waiting in (subscription.get, lambda: subscription.add("other")):
        with raises(ctx.driver.programming, words="nothing may wait"):
            ctx.in_hub(waiting)
    ctx.in_hub(subscription.close)
    ctx.in_hub(listener.close)

    assert job.result() == []
    ctx.wait_until(lambda: not ctx.server.exists(pid), "the session has ended")


@over_psycopg()
def test_forked_child_harms_nobody_and_may_subscribe_anew(ctx: Context) -> None:
    with _listener(ctx) as listener, listener.subscribe(_channel(ctx)) as subscription:
        pid = _pid(listener)

        told = Child(ctx, lambda: _live_on(ctx, listener, subscription)).result()

        assert told == ["from the child"]
        assert _pid(listener) == pid
        _send(ctx, 7, 7)
        assert _numbers(islice(subscription, 1)) == [7]


def _live_on(ctx: Context, listener: Listener, inherited: Subscription) -> list[str]:
    with raises(ctx.driver.operational, words="the parent process's"):
        inherited.get(1)
    conn = ctx.connect(autocommit=True)
    with listener.subscribe(f"{ctx.name}-child") as own:
        conn.cursor().execute("select pg_notify(%s, 'from the child')", (f"{ctx.name}-child",))
        heard = [item.payload for item in islice(own, 1)]  # type: ignore[union-attr]  # no marker
    listener.close()
    conn.close()
    return heard


@needs("hub")
@over_psycopg()
def test_subscribers_in_other_os_threads(ctx: Context) -> None:
    ready: list[bool] = []

    def subscribe() -> list[int]:
        with listener.subscribe(_channel(ctx)) as subscription:
            ready.append(True)
            return _numbers(islice(subscription, 100))

    with _listener(ctx) as listener:
        first = listener.subscribe(_channel(ctx))
        jobs = [ctx.native(subscribe) for _ in range(3)]
        ctx.wait_until(lambda: len(ready) == 3, "all have subscribed")

        _send(ctx, 0, 99)

        assert finish(jobs) == [list(range(100))] * 3
        assert _numbers(islice(first, 100)) == list(range(100))
