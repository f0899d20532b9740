"""eventlet's description for the conformance suite."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import eventlet
from eventlet.hubs import _threadlocal, get_hub

from greenpg_conformance import Description, Mode

from ._waker import _wakers

PATCH: Final = "import eventlet; eventlet.monkey_patch()"
NATIVE: Final = "epolls" if sys.platform == "linux" else "kqueue"
OWN_LOOP: Final = {"EVENTLET_HUB": NATIVE}
ASYNCIO: Final = {"EVENTLET_HUB": "asyncio"}
MODES: Final = (
    Mode(NATIVE, OWN_LOOP),
    Mode(f"{NATIVE}-patched", OWN_LOOP, PATCH),
    Mode("asyncio", ASYNCIO),
    Mode("asyncio-patched", ASYNCIO, PATCH),
)


def _in_hub(fn: Callable[[], object]) -> None:
    get_hub().schedule_call_global(0, fn)


def _registered() -> Mapping[Hashable, str]:
    """Return the hub's listeners and its pending timers."""
    hub: Any = get_hub()
    listeners: dict[Hashable, str] = {
        (kind, fd): f"{kind} listener on descriptor {fd}"
        for kind, found in hub.listeners.items()
        for fd in found
    }
    timers: dict[Hashable, str] = {
        id(timer): f"timer {timer!r}"
        for _, timer in [*hub.timers, *hub.next_timers]
        if not timer.called
    }
    return {**listeners, **timers}


def _hub_of_thread_ends() -> None:
    """Stop the thread's hub: a suspended hub is never freed, and an asyncio loop not even then."""
    hub: Any = getattr(_threadlocal, "hub", None)
    if hub is not None and hub.running:
        hub.abort(wait=True)
    if hasattr(hub, "loop"):
        for listener in list(hub.listeners["read"].values()):
            hub.remove(listener)
        _wakers.pop(hub, None)
        hub.loop.close()


def _facts() -> Mapping[str, str]:
    hub = type(get_hub()).__module__.rpartition(".")[2]
    return {"event loop": hub, "resolver": "getaddrinfo in a thread"}


def _survives_recursion() -> bool:
    """eventlet's hub is in Python: a listener whose removal fails stays in it."""
    return False


description: Final = Description(
    modes=MODES,
    sockets="eventlet.green.socket",
    in_hub=_in_hub,
    timeout=eventlet.Timeout,
    registered=_registered,
    hub_of_thread_ends=_hub_of_thread_ends,
    survives_recursion=_survives_recursion,
    facts=_facts,
)
