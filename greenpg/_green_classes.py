"""Which green class stands above each of psycopg2's C classes, and under users' classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

_Class = TypeVar("_Class", bound=type)
_green: Final[dict[type, type]] = {}  # by psycopg2's C class


def green(c_class: type) -> Callable[[_Class], _Class]:
    """Decorate the green class that stands above one of psycopg2's C classes."""

    def register(cls: _Class) -> _Class:
        _green[c_class] = cls
        return cls

    return register


def green_class(factory: Any) -> Any:
    """Return a user's class with the green class for its C class put under it.

    A factory that is no class of psycopg2's is returned unchanged.
    """
    if isinstance(factory, type):
        for kind in factory.__mro__:
            if kind in _green:
                return derived_class(factory, _green[kind])
    return factory


def derived_class(base: type, below: type) -> type:
    """Return `base` with `below` put under it; made once, and kept by `base` alone."""
    if issubclass(base, below):
        return base
    if base in below.__mro__:
        return below
    slot = f"_greenpg_{below.__name__}"
    made: type | None = base.__dict__.get(slot)
    if made is None:
        content = {"__module__": base.__module__, "_greenpg_twin": True}
        metaclass: Any = type(base)
        twin: type = metaclass(base.__name__, (base, below), content)
        setattr(base, slot, twin)
        return twin
    return made


def original_class(twin: Any) -> Any:
    """Return the class under which a green one was put, for what `green_class` has returned."""
    if isinstance(twin, type) and "_greenpg_twin" in twin.__dict__:
        return twin.__bases__[0]
    return twin
