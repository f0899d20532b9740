"""`greenpg.Listener`: many subscribers over one connection, replaced when lost."""

from __future__ import annotations

from functools import partial
from itertools import islice

import psycopg
import psycopg2
import pytest

import greenpg
from greenpg import Listener, Missed
from greenpg.backend import current
from tests.db.conftest import until
from tests.db.notify.conftest import payloads

SUBSCRIBERS, NOTIFICATIONS, CHANNELS = 200, 900, 3
NOTIFY = {psycopg2: psycopg2.extensions.Notify, psycopg: psycopg.Notify}


@pytest.fixture
def listen(driver):
    """`Listener` over the tested driver."""
    return partial(Listener, driver=driver.__name__)


@pytest.fixture
def listener(listen, dsn):
    with listen(dsn) as made:
        yield made


@pytest.fixture
def cut(auto):
    """End the listener's session."""

    def cut_off(listener):
        auto.cursor().execute("select pg_terminate_backend(%s)", (pid_of(listener),))

    return cut_off


def pid_of(listener):
    return listener._connection._conn.info.backend_pid


def heard(subscription):
    """Wait for the next notification and return its payload."""
    return payloads([subscription.get(5)])[0]


@pytest.mark.timeout(100)
def test_every_subscriber_gets_every_notification_in_order(listener, auto, spawn):
    ready = []

    def subscribe(number):
        with listener.subscribe(f"channel {number % CHANNELS}") as subscription:
            ready.append(number)
            return payloads(islice(subscription, NOTIFICATIONS // CHANNELS))

    jobs = [spawn(subscribe, number) for number in range(SUBSCRIBERS)]
    until(lambda: len(ready) == SUBSCRIBERS, "all have subscribed")
    auto.cursor().execute(
        "select pg_notify('channel ' || i %% %s, i::text) from generate_series(0, %s) i",
        (CHANNELS, NOTIFICATIONS - 1),
    )

    for number, job in enumerate(jobs):
        expected = [str(i) for i in range(number % CHANNELS, NOTIFICATIONS, CHANNELS)]
        assert job.result() == expected


def test_change_that_meets_the_end_of_memory_is_made_later(listener, notify, monkeypatch):
    def fail(change):
        monkeypatch.undo()
        raise MemoryError

    with listener.subscribe("first") as subscription:
        monkeypatch.setattr(listener, "_adopt", fail)
        subscription.add("second")
        notify("second", "a")

        assert subscription.get(5) == Missed(None)  # its connection was replaced
        assert heard(subscription) == "a"


def test_failed_add_leaves_earlier_subscriptions(proxy, listen, notify, driver):
    with listen(proxy.dsn) as listener, listener.subscribe("first") as subscription:
        proxy.stall()
        with pytest.raises(driver.OperationalError, match="not listened to"):
            subscription.add("first", "second", timeout=0.2)
        proxy.flow()
        subscription.add("third")  # in force after what came before
        notify("second", "dropped")
        notify("first", "kept")

        assert heard(subscription) == "kept"
        assert subscription.channels == {"first", "third"}


def test_wrong_drop_is_refused_and_disturbs_no_subscriber(listener, notify):
    with listener.subscribe("first") as wrong, listener.subscribe("first") as other:
        with pytest.raises(TypeError):
            wrong.drop(["first"])  # in the listener's task it would end the connection
        wrong.drop()
        wrong.drop("unknown")
        notify("first", "a")

        assert heard(wrong) == heard(other) == "a"
        assert listener.get_stats()["connects"] == 1


def test_one_subscriber_hears_several_channels(listener, notify):
    with listener.subscribe("one", "two") as subscription:
        notify("one", "a")
        notify("two", "b")

        assert [note.channel for note in islice(subscription, 2)] == ["one", "two"]


def test_nothing_is_started_before_the_first_subscription(dsn, sessions, listen):
    before = sessions()

    with listen(dsn):
        assert sessions() == before


def test_channels_are_added_and_dropped(listener, notify):
    with listener.subscribe("first") as subscription:
        subscription.add("second", "third")
        subscription.drop("first")
        until(lambda: subscription.channels == {"second", "third"}, "the change is in force")

        notify("first", "unheard")
        notify("second", "two")
        notify("third", "three")

        assert payloads(islice(subscription, 2)) == ["two", "three"]


def test_closed_subscription_ends_its_iteration(listener, spawn, driver):
    subscription = listener.subscribe("closed")
    job = spawn(lambda: list(subscription))

    subscription.close()
    subscription.close()

    assert job.result() == []
    with pytest.raises(driver.InterfaceError, match="the subscription is closed"):
        subscription.get()
    with pytest.raises(driver.InterfaceError, match="the subscription is closed"):
        subscription.add("more")


def test_what_has_arrived_can_be_read_after_the_end(listener, notify):
    subscription = listener.subscribe("late")
    notify("late", "one", "two")
    until(lambda: len(subscription._inbox._items) == 2, "both have arrived")

    listener.close()

    assert payloads(subscription) == ["one", "two"]


def test_unused_channel_is_not_listened_to(listener, notify):
    kept = listener.subscribe("kept")
    dropped = listener.subscribe("dropped")

    del dropped

    until(lambda: list(listener._subscribers) == ["kept"], "the channel is dropped")
    notify("kept", "one")
    assert heard(kept) == "one"


@pytest.mark.green
def test_killed_subscriber_leaves_nothing(listener, spawn):
    def subscribe():
        for _ in listener.subscribe("doomed"):
            pass

    job = spawn(subscribe)
    until(lambda: "doomed" in listener._subscribers, "it has subscribed")

    job.kill()
    job.join()

    until(lambda: not listener._subscribers, "nobody is subscribed")


@pytest.mark.green
def test_subscriber_killed_while_subscribing_leaves_nothing(proxy, spawn, listen):
    with listen(proxy.dsn) as listener, listener.subscribe("first"):
        proxy.stall()
        job = spawn(listener.subscribe, "doomed")
        until(lambda: "doomed" in listener._subscribers, "it is subscribing")

        job.kill()
        job.join()
        proxy.flow()

        until(lambda: list(listener._subscribers) == ["first"], "it is not subscribed")


def test_full_queue_drops_the_oldest_and_counts(listener, notify):
    with listener.subscribe("busy", max_queue=3) as subscription:
        notify("busy", *"abcdef")
        until(lambda: subscription._inbox._total == 3, "three are dropped")

        items = list(islice(subscription, 4))

    assert items[0] == Missed(3)
    assert payloads(items[1:]) == ["d", "e", "f"]


def test_slow_subscriber_does_not_hold_up_the_others(listener, notify):
    slow = listener.subscribe("shared", max_queue=1)
    quick = listener.subscribe("shared")

    notify("shared", *"abc")

    assert payloads(islice(quick, 3)) == ["a", "b", "c"]
    assert slow.get(5) == Missed(2)


def test_get_gives_up_in_time(listener):
    assert listener.subscribe("quiet").get(0.01) is None


def test_lost_connection_is_replaced_and_reported(listener, notify, cut):
    with listener.subscribe("phoenix") as subscription:
        notify("phoenix", "before")
        assert heard(subscription) == "before"

        cut(listener)

        assert subscription.get(5) == Missed(None)
        notify("phoenix", "after")
        assert heard(subscription) == "after"


def test_nothing_is_lost_after_the_marker(listener, notify, cut):
    with listener.subscribe("phoenix") as subscription:
        for number in range(5):
            cut(listener)
            assert subscription.get(5) == Missed(None)

            notify("phoenix", f"{number} a", f"{number} b")

            assert payloads(islice(subscription, 2)) == [f"{number} a", f"{number} b"]


def test_new_subscriber_gets_no_earlier_loss(listener, cut):
    old = listener.subscribe("phoenix")
    cut(listener)
    assert old.get(5) == Missed(None)

    with listener.subscribe("phoenix") as new:
        assert new.get(0.01) is None


def test_subscribers_wait_for_a_server_that_is_away(proxy, spawn, notify, listen):
    proxy.refuse()
    with listen(proxy.dsn) as listener:
        job = spawn(listener.subscribe, "patient")
        until(lambda: listener._failures > 1, "it has tried twice")

        proxy.admit()

        subscription = job.result()
        notify("patient", "one")
        assert heard(subscription) == "one"


def test_impatient_subscriber_gets_the_cause(proxy, listen, driver):
    proxy.refuse()
    with listen(proxy.dsn) as listener:
        with pytest.raises(driver.OperationalError, match="'x' not listened to in") as caught:
            listener.subscribe("x", timeout=0.2)

        assert isinstance(caught.value.__cause__, driver.OperationalError)
        assert "refused" in str(caught.value.__cause__)


def test_silent_server_counts_as_lost(proxy, notify, listen):
    with listen(proxy.dsn, heartbeat=0.1, patience=0.2) as listener:
        subscription = listener.subscribe("stalled")
        proxy.stall(scope="present")

        assert subscription.get(5) == Missed(None)
        notify("stalled", "alive")
        assert heard(subscription) == "alive"


def test_idle_server_that_answers_does_not(proxy, listen):
    with listen(proxy.dsn, heartbeat=0.02) as listener:
        subscription = listener.subscribe("idle")
        pid = pid_of(listener)

        assert subscription.get(0.3) is None
        assert pid_of(listener) == pid


def test_closed_listener_refuses_subscribers(listener, driver):
    subscription = listener.subscribe("any")

    listener.close()
    listener.close()

    with pytest.raises(driver.InterfaceError, match="the listener is closed"):
        listener.subscribe("more")
    with pytest.raises(driver.InterfaceError, match="the listener is closed"):
        subscription.get()


def test_close_ends_the_session_and_who_waits(listener, sessions, spawn):
    before = sessions()
    jobs = [spawn(list, listener.subscribe(name)) for name in ("one", "two", "two")]
    assert len(sessions()) == len(before) + 1

    listener.close()

    assert [job.result() for job in jobs] == [[], [], []]
    until(lambda: sessions() == before, "the session has ended")


def test_close_does_not_wait_for_a_server_that_is_silent(proxy, listen, driver):
    listener = listen(proxy.dsn)
    subscription = listener.subscribe("any")
    proxy.stall()
    with pytest.raises(driver.OperationalError):
        subscription.add("other", timeout=0.01)

    listener.close(timeout=1.5)

    assert list(subscription) == []
    proxy.flow()
    until(lambda: listener._connection is None, "the connection is given up")


def test_backend_may_be_chosen(dsn, notify, listen):
    with listen(dsn, backend=current()) as listener, listener.subscribe("any") as subscription:
        notify("any", "one")

        assert heard(subscription) == "one"


def test_wrong_arguments_are_refused(dsn, listen, driver):
    with pytest.raises(driver.ProgrammingError, match='missing "="'):
        listen("no such = thing")
    with pytest.raises(greenpg.errors.BackendError):
        listen(dsn, backend="no_such_backend").subscribe("any")
    with (
        pytest.raises(driver.ProgrammingError, match="a name has 1 to 63 bytes"),
        listen(dsn) as one,
    ):
        one.subscribe("")


def test_notifications_are_the_drivers(listener, notify, driver):
    with listener.subscribe("one") as subscription:
        notify("one", "a")

        assert isinstance(subscription.get(5), NOTIFY[driver])


def test_an_unknown_driver_is_refused(dsn):
    with pytest.raises(ValueError, match="driver='pg8000': give 'psycopg2' or 'psycopg'"):
        Listener(dsn, driver="pg8000")


def test_channel_is_heard_on_every_client_encoding(dsn, notify, encoding, name, listen):
    with (
        listen(dsn, client_encoding=encoding) as listener,
        listener.subscribe(name) as subscription,
    ):
        notify(name, "here")

        assert heard(subscription) == "here"


def test_its_numbers_count_notifications_and_connections(listener, dsn, meters):
    prometheus = pytest.importorskip("prometheus_client")
    from greenpg.metrics import ListenerCollector
    from greenpg.otel import ListenerObserver

    registry = prometheus.CollectorRegistry()
    registry.register(ListenerCollector(web=listener))
    ListenerObserver(web=listener, meter_provider=meters.provider)

    def sample(name):
        return registry.get_sample_value(f"greenpg_listener_{name}", {"listener": "web"})

    with listener.subscribe("a", "b") as one, greenpg.connect(dsn) as conn:
        conn.cursor().execute("notify a; notify b; notify c")
        conn.commit()
        assert len(list(islice(one, 2))) == 2

        assert (sample("connected"), sample("subscriptions"), sample("channels")) == (1, 1, 2)
        assert sample("notifications_total") == 2
        assert (sample("connects_total"), sample("failures_total")) == (1, 0)
        found = meters.numbers("greenpg.listener.", {"greenpg.listener.name": "web"})
        assert found == listener.get_stats()
    conn.close()
