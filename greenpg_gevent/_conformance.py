"""gevent's description for the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from posix import fork
from typing import Any, Final

import gevent
from gevent import get_hub

from greenpg_conformance import Description, Mode

PATCH: Final = "from gevent import monkey; monkey.patch_all()"
LIBEV: Final = {"GEVENT_LOOP": "libev-cext"}
LIBUV: Final = {"GEVENT_LOOP": "libuv-cffi"}
CFFI: Final = ("cffi",)  # which gevent does not bring along except on Windows
MODES: Final = (
    Mode("libev", LIBEV),
    Mode("libev-patched", LIBEV, PATCH),
    Mode("libuv", LIBUV, modules=CFFI),
    Mode("libuv-patched", LIBUV, PATCH, CFFI),
)


def _in_hub(fn: Callable[[], object]) -> None:
    get_hub().loop.run_callback(fn)


def _registered() -> Mapping[Hashable, str]:
    """Return the active watchers: libuv lists them, libev only counts them."""
    loop: Any = get_hub().loop
    if loop.activecnt:
        return dict.fromkeys(range(loop.activecnt), "an active watcher")
    states = loop.debug() if hasattr(loop, "debug") else ()
    return {
        str(state.handle): f"{state.type.decode()} of {state.watcher!r}"
        for state in states
        if state.active and state.ref and not state.closing  # gevent's own handles have no ref
    }


def _hub_of_thread_ends() -> None:
    get_hub().destroy(destroy_loop=True)


def _is_libuv() -> bool:
    return "libuv" in type(get_hub().loop).__module__


def _fork() -> int:
    """Fork by posix.fork, below any patch; by gevent.fork on libuv, which requires it."""
    return int(gevent.fork() if _is_libuv() else fork())


def _forks_again() -> bool:
    """On libuv the second fork frees a handle that is in use (gevent/threadpool.py, `__init__`)."""
    return not _is_libuv()


def _survives_recursion() -> bool:
    """On libuv a RecursionError in gevent's own Python corrupts memory (double free)."""
    return not _is_libuv()


def _facts() -> Mapping[str, str]:
    hub: Any = get_hub()
    loop = type(hub.loop).__module__.split(".")[1]
    resolver = type(hub.resolver).__module__.rpartition(".")[2]
    return {"event loop": f"{loop}, {hub.loop.backend}", "resolver": resolver}


description: Final = Description(
    modes=MODES,
    sockets="gevent.socket",
    in_hub=_in_hub,
    timeout=gevent.Timeout,
    registered=_registered,
    hub_of_thread_ends=_hub_of_thread_ends,
    fork=_fork,
    forks_again=_forks_again,
    survives_recursion=_survives_recursion,
    facts=_facts,
)
