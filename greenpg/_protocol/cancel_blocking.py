"""PQcancel, libpq's cancel request before libpq 17: it blocks until the server has taken it."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL, PyDLL, c_char_p, c_int, c_void_p, create_string_buffer
from weakref import finalize


def cancel_blocking(library: str, pgconn: int) -> Callable[[], str | None]:
    """Return a function that cancels what runs, and returns libpq's error if it cannot.

    It blocks, with the GIL released, and belongs in a thread of its own. `library` is libpq, or a
    module that is linked with it.
    """
    keeping, releasing = PyDLL(library), CDLL(library)
    get, send, free = keeping.PQgetCancel, releasing.PQcancel, keeping.PQfreeCancel
    get.restype, get.argtypes = c_void_p, (c_void_p,)
    send.restype, send.argtypes = c_int, (c_void_p, c_char_p, c_int)
    free.restype, free.argtypes = None, (c_void_p,)
    key, text = get(pgconn), create_string_buffer(256)

    def request() -> str | None:
        return None if send(key, text, len(text)) else text.value.decode(errors="replace")

    finalize(request, free, key).atexit = False  # not while a thread is in it
    return request
