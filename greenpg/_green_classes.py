"""Which green class stands above each of a driver's classes, and under users' classes.

A user's class `C`, derived from one of psycopg2's C classes or from psycopg 3's, becomes green by
a *twin*: a class of the same name whose bases are `(C, Green)`. Its method resolution order is that
of `C` with the green class before the driver's, so `super()` in `C` finds the green methods. The
program has not defined the twin, so nothing that observes definitions of classes may run:

- Python requires that the twin's metaclass is that of `C`. `type.__new__` makes it, so `__new__`
  and `__init__` of the metaclass do not run.
- `type.__new__` calls `__init_subclass__` as found from the first base. That is `_silent`'s, which
  is then taken out of `__bases__`.
- It calls `__set_name__` only for what the new class itself contains: nothing of `C`.
- An ABC keeps answers of `isinstance` in the class, so a twin of an ABC has its own.
- `C` keeps its twin in an attribute, past the metaclass's `__setattr__`.

Green classes have no metaclass: it would conflict with that of any class derived from them. So
they cannot claim plain objects as instances (see patch.py).

All names but psycopg2's and the documented ones begin with `_greenpg_` in green classes and their
instances: the other names are free for users' classes (test_private_names.py).

What stays visible: `type(cur)` is the twin unless `C` was derived from a green class (after the
patch, or from greenpg's), and `C.__subclasses__()` contains the twin.
"""

from __future__ import annotations

from abc import ABCMeta, _abc_init  # type: ignore[attr-defined]  # not in its stubs
from collections.abc import Callable
from typing import Any, Final, TypeVar

_Class = TypeVar("_Class", bound=type)
_green: Final[dict[type, type]] = {}  # by psycopg2's C class, base classes first
_HEAP_TYPE: Final = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE: a class made in Python
_set_bases: Final[Any] = type.__dict__["__bases__"].__set__


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
        for c_class in reversed(_green):
            if issubclass(factory, c_class):
                return derived_class(factory, _green[c_class])
    return factory


def derived_class(base: type, below: type) -> type:
    """Return `base` with `below` put under it; made once, and kept by `base` alone."""
    if issubclass(base, below):
        return base
    if type.__subclasscheck__(base, below):
        return below
    slot = f"_greenpg_{below.__name__}"
    made: type | None = base.__dict__.get(slot)
    if made is None:
        made = _twin(base, below)
        type.__setattr__(base, slot, made)
    return made


def become(instance: Any, below: type) -> None:
    """Put `below` under the class of an instance."""
    object.__setattr__(instance, "__class__", derived_class(type(instance), below))


def with_c_methods(below: type, c_class: type) -> Any:
    """Return a class above a green one that has psycopg2's methods, for plain connections."""
    names = [name for name in vars(below) if name in dir(c_class) and not name.startswith("__")]
    content = {name: getattr(c_class, name) for name in names}
    return type(below.__name__, (below,), {"__module__": below.__module__, **content})


def original_class(twin: Any) -> Any:
    """Return the class under which a green one was put, for what `green_class` has returned."""
    if isinstance(twin, type) and "_greenpg_twin" in twin.__dict__:
        return twin.__bases__[0]
    return twin


def _silent(base: type) -> type:
    """Return the first base of a twin while it is made: no `__init_subclass__` of a user's runs.

    Its layout is that of `base`, else `__bases__` could not be set (typeobject.c,
    compatible_for_assignment): a base in Python, such as psycopg 3's, must be its own too.
    """
    root = base
    while root.__base__ not in (None, object):
        root = root.__base__
    above = (root,) if root.__flags__ & _HEAP_TYPE else ()
    content: dict[str, Any] = {"__init_subclass__": classmethod(lambda cls: None)}
    content |= {"__orig_bases__": ()} if above else {"__slots__": ()}  # Generic wants the first
    return type("_Silent", above, content)


def _twin(base: type, below: type) -> type:
    content = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_greenpg_twin": True,
    }
    twin = type.__new__(type(base), base.__name__, (_silent(base), base, below), content)
    _set_bases(twin, (base, below))
    if issubclass(type(base), ABCMeta):
        _abc_init(twin)
    return twin
