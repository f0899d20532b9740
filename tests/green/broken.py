"""gevent's backend with one fault each, for the conformance suite to find: `module:fault`."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists

from greenpg._psycopg2 import interrupts
from greenpg._psycopg2.state import State as _State
from greenpg._session import forks
from greenpg.backend import READ, Backend
from greenpg_gevent import _backend, _conformance, _watch
from greenpg_gevent._backend import backend

conformance = _conformance.description
Waiter: Any = _watch.Waiter
State: Any = _State
FAULTS: dict[str, Callable[[], object]] = {}


def __getattr__(name: str) -> Backend:
    if name not in FAULTS:
        raise AttributeError(name)
    FAULTS[name]()
    globals()[name] = backend
    return backend


def fault(make: Callable[[], object]) -> Callable[[], object]:
    FAULTS[make.__name__.removeprefix("_")] = make
    return make


def around(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Call `replacement(usual, *args)` in place of a function or method."""
    usual = getattr(owner, name)
    setattr(owner, name, lambda *args, **named: replacement(usual, *args, **named))


@fault
def _sound() -> None:
    """Leave everything as it is."""


@fault
def _timeout_raises() -> None:
    def wait(usual: Any, waiter: Any, fd: int, events: int, timeout: float | None) -> int:
        ready: int = usual(waiter, fd, events, timeout)
        if not ready:
            raise TimeoutError
        return ready

    around(Waiter, "wait", wait)


@fault
def _wait_blocks() -> None:
    def wait(_: Any, waiter: Any, fd: int, events: int, timeout: float | None) -> int:
        ready, _, _ = select.select([fd], [], [], timeout)
        return READ if ready else 0

    around(Waiter, "wait", wait)


@fault
def _hang_up_is_ignored() -> None:
    def wait(usual: Any, waiter: Any, fd: int, events: int, timeout: float | None) -> int:
        ready: int = usual(waiter, fd, events, timeout)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if any(flags & select.POLLHUP for _, flags in poll.poll(0)):
            backend.sleep(timeout or 0)
            return 0
        return ready

    around(Waiter, "wait", wait)


@fault
def _loop_spins_after_a_wait() -> None:
    def spin(loop: Any) -> None:
        loop.run_callback(spin, loop)

    def wait(usual: Any, waiter: Any, *args: Any) -> Any:
        spin(get_hub().loop)
        return usual(waiter, *args)

    around(Waiter, "wait", wait)


@fault
def _timer_runs_on() -> None:
    def wait(usual: Any, waiter: Any, fd: int, events: int, timeout: float | None) -> int:
        task = getcurrent()
        if timeout is not None:
            timer = get_hub().loop.timer(timeout)
            timer.start(lambda: task.switch() if not task.dead else None)
        return int(usual(waiter, fd, events, timeout))

    around(Waiter, "wait", wait)


@fault
def _watcher_is_kept_after_close() -> None:
    kept: list[object] = []  # both are closed where they are freed
    around(_watch, "_dispose", lambda _, *args: kept.append(args))


@fault
def _interrupt_is_kept_for_later() -> None:
    kept: list[BaseException] = []

    def wait(usual: Any, waiter: Any, *args: Any) -> int:
        if kept:
            raise kept.pop()
        return int(usual(waiter, *args))

    around(Waiter, "wait", wait)
    around(Waiter, "interrupt", lambda _, waiter, exc: kept.append(exc))


@fault
def _spawn_runs_at_once() -> None:
    def spawn(fn: Any, *args: Any) -> Any:
        greenlet = gevent.spawn(fn, *args)
        gevent.sleep(0)
        return greenlet

    _backend.__dict__["spawn"] = spawn


@fault
def _set_wakes_no_other_thread() -> None:
    def set_it(usual: Any, event: Any) -> None:
        event._waits = [entry for entry in event._waits if entry[0] is get_hub_if_exists()]
        usual(event)

    around(_backend.Event, "set", set_it)


@fault
def _hub_may_wait() -> None:
    type(backend).can_wait = lambda self: True  # type: ignore[method-assign]


@fault
def _no_lock() -> None:
    around(State, "_line_up", lambda *_: None)


@fault
def _last_come_first_served() -> None:
    class Stack(list[Any]):
        append = appendleft = lambda self, waiting: self.insert(0, waiting)
        popleft = lambda self: self.pop(0)  # noqa: E731

    def init(usual: Any, state: Any, *args: Any) -> None:
        usual(state, *args)
        state.queue = Stack()

    around(State, "__init__", init)


@fault
def _nested_entry() -> None:
    def enter(usual: Any, state: Any, *args: Any) -> Any:
        inside, state.in_driver = state.in_driver, False
        try:
            return usual(state, *args)
        finally:
            state.in_driver = state.in_driver or inside

    around(State, "enter", enter)


@fault
def _forks_are_not_cut_off() -> None:
    around(forks, "_replace", lambda *_: None)


@fault
def _query_is_not_cancelled() -> None:
    around(interrupts, "cancel_query", lambda *_: None)


@fault
def _interrupt_is_forgotten() -> None:
    around(State, "_restore_status", lambda *_: None)
