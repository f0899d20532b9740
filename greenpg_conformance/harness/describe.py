"""Describes a backend to the suite, beyond the backend interface: modes, hub, timeouts, forks."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from greenpg.backend import GROUP as BACKENDS
from greenpg.backend import Backend, as_backend
from greenpg.errors import BackendError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

GROUP: Final = "greenpg.conformance"
Registered: TypeAlias = Mapping[Hashable, str]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run a backend: variables, and lines of Python run before anything else.

    `modules` are those that this mode needs beyond the backend's library. A mode that lacks one is
    left out.
    """

    name: str
    environ: Mapping[str, str] = field(default_factory=dict)
    prelude: str = ""
    modules: Sequence[str] = ()

    @property
    def lacking(self) -> list[str]:
        """The modules that are not installed."""
        return [name for name in self.modules if find_spec(name) is None]


def _nothing() -> dict[Any, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Describes a backend to the suite; every part has a default that suits OS threads.

    `run(fn)` enters the library and calls `fn` in a task. `sockets` names the module of the
    library's own sockets, None if it has none. `in_hub(fn)` makes the hub call
    `fn` soon, and `timeout(seconds)` is the library's own timeout, which raises in a with block.
    `registered` returns what is registered with the event loop, `hub_of_thread_ends` is called at
    the end of an OS thread that has used the library, `fork` is the plainest way to fork that the
    library survives. `forks_again` returns whether a child may fork in its turn, and
    `survives_recursion` whether the loop survives where memory or the stack ends in it. `facts`
    returns, for the doctor, which of its event loops and resolvers the library uses.
    """

    modes: tuple[Mode, ...] = (Mode("plain"),)
    run: Callable[[Callable[[], object]], object] = lambda fn: fn()
    sockets: str | None = "socket"
    in_hub: Callable[[Callable[[], object]], object] | None = None
    timeout: Callable[[float], AbstractContextManager[Any]] | None = None
    registered: Callable[[], Registered] = _nothing
    hub_of_thread_ends: Callable[[], object] = _nothing
    fork: Callable[[], int] = os.fork
    forks_again: Callable[[], bool] = lambda: True
    survives_recursion: Callable[[], bool] = lambda: True
    facts: Callable[[], Mapping[str, str]] = _nothing


def find(which: str) -> tuple[Backend, Description]:
    """Return the backend of a name or of `module:attribute`, and its description.

    The description is the entry point of the same name in the group `greenpg.conformance`, or
    `conformance` in the module, or the default one. Raises BackendError.
    """
    if ":" not in which:
        return as_backend(which), _registered_description(which)
    name, _, attribute = which.partition(":")
    try:
        module = importlib.import_module(name)
        backend = getattr(module, attribute)
    except (ImportError, AttributeError) as err:
        raise BackendError(f"backend {which!r} cannot be loaded: {err}") from err
    return as_backend(backend), getattr(module, "conformance", Description())


def installed() -> list[str]:
    """Return the names of the registered backends; `threads`, the reference, comes first."""
    names = {point.name for point in metadata.entry_points(group=BACKENDS)}
    return sorted(names, key=lambda name: (name != "threads", name))


def _registered_description(name: str) -> Description:
    points: Any = metadata.entry_points(group=GROUP, name=name)
    return next((point.load() for point in points), None) or Description()
