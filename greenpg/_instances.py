"""The living objects of a kind, for those who look at all of them: fork hooks, logs, metrics."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

_T = TypeVar("_T")


class Instances(Generic[_T]):
    """Weak references to objects; any thread or finalizer may add one while another looks.

    Iteration over a WeakSet raises RuntimeError then, since it is Python code (_weakrefset.py).
    """

    def __init__(self) -> None:
        self._references: set[ref[_T]] = set()

    def add(self, one: _T) -> None:
        """Add an object, until it is freed."""
        self._references.add(ref(one, self._references.discard))

    def all(self) -> list[_T]:
        """Return those that exist now."""
        found = [reference() for reference in list(self._references)]  # list() alone is one step
        return [one for one in found if one is not None]
