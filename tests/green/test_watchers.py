"""Watchers of gevent's libuv under Ctrl-C: one lost before `close` is freed while libuv uses it."""

from __future__ import annotations

import os

import pytest

from tests import programs

HEAD = """
import gevent, socket
from contextlib import suppress
import greenpg
from greenpg.backend import READ, WRITE
from greenpg_gevent import backend
from tests.db.strikes import CtrlC, Strike, struck

greenpg.use("gevent")
hub = gevent.get_hub()
assert "libuv" in type(hub.loop).__module__
ours, _theirs = socket.socketpair()
made = []

def recorded(make):
    def record(*args, **named):
        made.append(make(*args, **named))
        return made[-1]
    return record

for name in ("timer", "async_", "io"):
    setattr(hub.loop, name, recorded(getattr(hub.loop, name)))

class Parked:
    ended, waiter = False, None

def is_closed(watcher):
    return getattr(watcher, "_watcher_ref", getattr(watcher, "_watcher", None)) is None

def woken(event):
    hub.loop.run_callback(event.set)
    event.wait()

def on_socket(events):
    waiter = backend.waiter()
    try:
        waiter.wait(ours.fileno(), events, 0.001)
    finally:
        with suppress(CtrlC):
            waiter.close()
        waiter.close()

OPERATIONS = {
    "event": lambda: backend.event().wait(0.001),
    "endless event": lambda: woken(backend.event()),
    "park": lambda: backend.park(Parked(), 0.001),
    "read": lambda: on_socket(READ),
    "write": lambda: on_socket(WRITE),
}
"""
PROGRAM = """
def at_each_place(operation):
    nth = 0
    while True:
        strike = Strike(nth)
        struck(lambda _: operation(), None, strike)
        lost = [watcher for watcher in made if not is_closed(watcher)]
        assert not lost, (strike.place, lost)
        if not strike.place:
            return nth
        made.clear()
        nth += 1

def main():
    print(at_each_place(OPERATIONS[{name!r}]))

gevent.spawn(main).get()
"""


@pytest.mark.filterwarnings("ignore:libuv only supports millisecond")
@pytest.mark.parametrize("name", ["event", "endless event", "park", "read", "write"])
def test_each_is_closed(name: str) -> None:
    done = programs.run(
        HEAD + PROGRAM.format(name=name), env={**os.environ, "GEVENT_LOOP": "libuv-cffi"}
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
