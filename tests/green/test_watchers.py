"""What waits leave in the loop when Ctrl-C lands anywhere in them.

A watcher of gevent's libuv that is lost before `close` is freed while libuv uses it; a listener
that eventlet keeps takes the wake-ups of the descriptor number's next owner.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests import programs

HEAD: Final = """
import socket
from contextlib import suppress
import greenpg
from greenpg.backend import READ, WRITE, current
from tests.db.strikes import CtrlC, Strike, struck

class Parked:
    ended, waiter = False, None

def woken(event):
    backend.soon(event.set)
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

def main(operation):
    operation()  # the first of a hub makes what later ones share
    nth = 0
    while True:
        strike = Strike(nth)
        struck(lambda _: operation(), None, strike)
        lost = left_over()
        assert not lost, (strike.place, lost)
        if not strike.place:
            print(nth)
            return
        nth += 1
"""
TAIL: Final = """
ours, _theirs = socket.socketpair()
greenpg.use("{library}")
backend = current()
run(OPERATIONS["{name}"])
"""
LIBUV: Final = """
import gevent
hub = gevent.get_hub()
assert "libuv" in type(hub.loop).__module__
made = []

def recorded(make):
    def record(*args, **named):
        made.append(make(*args, **named))
        return made[-1]
    return record

for name in ("timer", "async_", "io"):
    setattr(hub.loop, name, recorded(getattr(hub.loop, name)))

def is_closed(watcher):
    return getattr(watcher, "_watcher_ref", getattr(watcher, "_watcher", None)) is None

def left_over():
    found = [watcher for watcher in made if not is_closed(watcher)]
    made.clear()
    return found

def run(operation):
    gevent.spawn(main, operation).get()
"""
EVENTLET: Final = """
import eventlet
listeners = eventlet.hubs.get_hub().listeners

def left_over():
    return [one for kind in listeners.values() for one in kind.values() if is_waiters(one)]

def is_waiters(listener):
    return listener.cb.__self__.__class__ is backend.waiter

def run(operation):
    eventlet.spawn(main, operation).wait()
"""
EVENTLET_OPERATIONS: Final = ("read", "write")
LIBUV_OPERATIONS: Final = ("event", "endless event", "park", *EVENTLET_OPERATIONS)


@pytest.mark.parametrize("name", LIBUV_OPERATIONS)
def test_libuv_keeps_no_watcher(name: str) -> None:
    check("gevent", LIBUV, name, GEVENT_LOOP="libuv-cffi")


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
@pytest.mark.parametrize("name", EVENTLET_OPERATIONS)
def test_eventlet_keeps_no_listener(name: str, hub: str) -> None:
    check("eventlet", EVENTLET, name, EVENTLET_HUB=hub)


def check(library: str, code: str, name: str, **variables: str) -> None:
    tail = TAIL.format(library=library, name=name)

    done = programs.run(HEAD + code + tail, env={**os.environ, **variables})

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
