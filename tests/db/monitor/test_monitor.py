"""What the monitor shows: pools, their borrowers, failures and stalls, on every backend."""

from __future__ import annotations

import gc
import io
import weakref
from contextlib import closing
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import greenpg
from greenpg.backend import current
from greenpg.errors import PoolTimeout
from greenpg.monitor import Monitor, _feed
from greenpg.monitor._history import KEPT, History
from greenpg.monitor._snapshot import snapshot
from greenpg.threads import pristine
from tests import programs
from tests.db.conftest import until
from tests.db.monitor.conftest import get
from tests.db.pool.conftest import NOWHERE, answer, pid

_native = pristine("time")


def pool_of(shown, name="web"):
    found = [pool for pool in shown["pools"] if pool["name"] == name]
    return found[0] if found else None


def borrow(pool, lent):
    lent.append(pool.getconn())


def test_a_pool_is_shown_with_its_holders_and_waiters(make, serve, spawn):
    server, pool = serve(), make()
    lent: list[Any] = []
    conn = pool.getconn()
    answer(conn)
    jobs = [spawn(borrow, pool, lent) for _ in range(2)]
    until(lambda: len(pool.waiters()) == 2, "both wait")

    shown = get(server, "/data").json

    web = pool_of(shown)
    assert (web["in_use"], web["idle"], web["waiting"], web["max"]) == (1, 0, 2, 1)
    (holder,) = web["holders"]
    assert holder["place"].startswith("test_monitor.py:")
    assert holder["place"].endswith("test_a_pool_is_shown_with_its_holders_and_waiters")
    assert (holder["state"], holder["pid"]) == ("idle in transaction", pid(conn))
    (place,) = web["waiters"]
    assert place["place"].endswith(" in borrow")
    assert (place["count"], place["seconds"] > 0) == (2, True)
    assert shown["process"]["backend"] == current().name
    pool.putconn(conn)
    until(lambda: lent, "one is served")
    pool.putconn(lent.pop())
    until(lambda: lent, "the other is served")
    pool.putconn(lent.pop())
    for job in jobs:
        job.result()


def test_failures_are_shown(make, serve):
    server, pool = serve(), make(NOWHERE)
    with pytest.raises(PoolTimeout):
        pool.getconn(timeout=0.2)

    errors = {error["what"]: error for error in get(server, "/data").json["errors"]}

    assert errors.keys() == {"connect", "request"}
    assert errors["connect"]["error"] == "OperationalError"
    assert "127.0.0.1" in errors["connect"]["text"]
    assert errors["request"]["error"] == "PoolTimeout"
    assert errors["request"]["source"] == "pool web"


def newer(server, before):
    found = get(server, "/data").json["stalls"]
    return found if found["count"] > before["count"] else None


@pytest.mark.green
def test_stalls_are_shown_where_they_are_watched(serve):
    server = serve()
    before = get(server, "/data").json["stalls"]
    with greenpg.watch(0.1, backend=current()) as watch:
        until(lambda: watch._beat, "it beats")
        _native.sleep(0.3)
        after = until(lambda: newer(server, before), "shown")

    assert (before["watched"], after["watched"]) == (False, True)
    assert "in test_stalls_are_shown" in after["last"][-1]["stack"]


def test_a_stream_begins_with_the_past_and_goes_on_with_news(make, serve, listen):
    make()
    stream = listen(serve())

    first, second, third = (stream.event() for _ in range(3))

    assert "samples" in pool_of(first)
    assert "samples" not in pool_of(second)
    assert [second["tick"], third["tick"]] == [first["tick"] + 1, first["tick"] + 2]


def test_a_change_is_shown_at_the_second_tick_at_the_latest_which_is_within_a_second(
    make, serve, listen
):
    server, pool = serve(), make()
    pool.wait()
    stream = listen(server)
    before = stream.event()["tick"]

    with pool.connection():
        while not pool_of(shown := stream.event())["in_use"]:
            pass

    assert shown["tick"] <= before + 2
    assert 2 * _feed.INTERVAL < 1


def test_many_readers_cost_one_snapshot_for_each_tick(serve, listen, monkeypatch):
    calls: list[int] = []

    def counted(*args, **options):
        calls.append(1)
        return snapshot(*args, **options)

    monkeypatch.setattr(_feed, "snapshot", counted)
    server = serve()
    streams = [listen(server) for _ in range(5)]

    ticks = [{stream.event()["tick"] for stream in streams} for _ in range(3)]

    shown = max(set.union(*ticks)) - min(set.union(*ticks)) + 1
    assert len(calls) <= shown + 1  # another tick may have come meanwhile
    assert len(calls) < 5 * 3


def test_without_a_reader_nothing_is_made_but_samples(serve, monkeypatch):
    monkeypatch.delattr(_feed, "snapshot")
    feed = serve().monitor._feed

    until(lambda: feed._number >= 3, "it ticks")

    assert feed._history.number >= 1


def test_a_page_outlives_a_pool(make, serve, listen):
    stream = listen(serve())
    pool = make()
    pool.wait()
    while not pool_of(shown := stream.event()):
        pass
    key = pool_of(shown)["key"]

    pool.close()
    while pool_of(shown := stream.event()):
        pass
    make().wait()
    while not pool_of(shown := stream.event()):
        pass

    assert pool_of(shown)["key"] != key


def test_a_feed_whose_task_was_killed_is_started_by_a_reader(serve, monkeypatch):
    feed = serve().monitor._feed
    feed._seat = None  # as the task leaves it
    number = feed._number
    monkeypatch.setattr(_feed, "LATE", 0.0)

    feed.frame()
    monkeypatch.undo()

    until(lambda: feed._number > number + 1, "it ticks")


def test_a_monitor_that_is_freed_ends_its_task():
    monitor = Monitor(backend=current())
    monitor.start()
    feed = weakref.ref(monitor._feed)

    del monitor

    until(lambda: gc.collect() * 0 or feed() is None, "freed")


def served(app: Any, path: str, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """Call a WSGI application and return its answer; an endless one is cut off."""
    given: Any = {"PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": io.BytesIO(), **environ}
    setup_testing_defaults(given)
    found: list[Any] = []
    body = app(given, lambda status, headers, exc_info=None: found.extend([status, headers]))
    try:
        first = next(iter(body), b"")
    finally:
        getattr(body, "close", lambda: None)()
    return found[0], dict(found[1]), first


@pytest.mark.parametrize("path", ["", "/", "/page.css", "/page.js", "/data", "/events", "/no"])
def test_it_is_a_wsgi_application(path):
    monitor = Monitor(backend=current())

    with closing(monitor):
        status, headers, body = served(validator(monitor), path, SCRIPT_NAME="/ops/pools")

    assert status.partition(" ")[0] == {"": "308", "/no": "404"}.get(path, "200")
    assert body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_an_address_without_a_slash_leads_to_the_page_below_it():
    monitor = Monitor(backend=current())

    _, headers, _ = served(monitor, "", SCRIPT_NAME="/ops/p\r\nx", QUERY_STRING="token=a")

    assert headers["Location"] == "p%0D%0Ax/?token=a"


def test_the_page_loads_nothing_from_elsewhere(serve):
    server = serve()

    texts = [get(server, path).body.decode() for path in ("/", "/page.css", "/page.js")]

    assert all("//" not in text.replace("// ", "") for text in texts)


def test_samples_are_loans_per_second_and_the_mean_wait(make):
    pool = make()
    pool.wait()
    history = History()
    history.note(0.0, [pool._pool])
    for _ in range(4):
        with pool.connection():
            pass

    history.note(2.0, [pool._pool])

    ((rate, wait),) = history.of(pool._pool).samples
    assert rate == 2.0
    assert wait == 0.0


def test_where_nobody_is_served_the_wait_grows(make, spawn):
    pool = make()
    lent: list[Any] = []
    held = pool.getconn()
    history = History()
    history.note(0.0, [pool._pool])
    job = spawn(borrow, pool, lent)
    until(lambda: pool.waiters() and pool.waiters()[0].seconds > 0.05, "it waits")

    history.note(1.0, [pool._pool])
    held = pool.putconn(held)
    job.result()
    pool.putconn(lent.pop())

    ((rate, wait),) = history.of(pool._pool).samples
    assert rate == 0
    assert wait >= 0.05


def test_the_past_is_bounded(make):
    pool = make()
    history = History()

    for number in range(KEPT + 10):
        history.note(float(number), [pool._pool])

    assert len(history.of(pool._pool).samples) == KEPT


FORK = """
import os, sys
import greenpg
from greenpg.backend import current
from greenpg.monitor import Monitor
greenpg.use(sys.argv[1])
monitor = Monitor()
monitor.start()
current().sleep(0.01)  # eventlet's asyncio hub takes its loop for a running one in the child
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
feed = monitor._feed
first = feed.frame()
while feed._number < first.number + 3:
    current().sleep(0.01)
assert feed.frame().shown["process"]["pid"] == os.getpid()
os._exit(0)
"""


def test_a_mounted_monitor_samples_in_each_forked_child():
    done = programs.run(FORK, current().name)

    assert done.returncode == 0, done.stderr


def test_importing_it_loads_no_sockets():
    report = "import sys; print(*({'ssl', 'socket'} & sys.modules.keys()))"

    done = programs.run(f"import greenpg.monitor; {report}")

    assert done.stdout.split() == []
    assert done.returncode == 0, done.stderr
