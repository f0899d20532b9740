"""Marks of OS threads: a thread's number may be the next thread's too."""

from __future__ import annotations

from greenpg.threads import pristine

__all__ = ["Mark", "mark", "no_thread"]

_mine = pristine("_thread")._local()


class Mark:
    """Lives as long as its thread; a weak reference tells whether that has ended."""

    __slots__ = ("__weakref__",)


def mark() -> Mark:
    """Return this thread's mark."""
    try:
        found: Mark = _mine.mark
    except AttributeError:
        found = _mine.mark = Mark()
    return found


def no_thread() -> None:
    """Stand for a reference to a mark, where there is no thread."""
