"""Tokens of OS threads: a thread's number may be given to a later thread too."""

from __future__ import annotations

from greenpg.threads import pristine

_local = pristine("_thread")._local()


class ThreadToken:
    """Lives as long as its thread; a weak reference to it is dead once the thread has ended."""

    __slots__ = ("__weakref__",)


def thread_token() -> ThreadToken:
    """Return this thread's token."""
    try:
        found: ThreadToken = _local.token
    except AttributeError:
        found = _local.token = ThreadToken()
    return found


def no_thread() -> None:
    """Return None, as a reference to the token of an ended thread does."""
