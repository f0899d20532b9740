"""PQcancel of the libpq that psycopg is linked with, for libpq before 17."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import CDLL, c_char_p, c_int, c_void_p, create_string_buffer
from typing import Any
from weakref import finalize

from psycopg import OperationalError, pq


def blocking_request(pgconn: Any) -> Callable[[], object]:
    """Return a function that sends a request and blocks until it has ended, without the GIL.

    psycopg's binding in C keeps the GIL during PQcancel.
    """
    if pq.__impl__ == "python":
        return pgconn.get_cancel().cancel  # type: ignore[no-any-return]
    libpq = CDLL(sys.modules[type(pgconn).__module__].__file__)  # and what it is linked with
    get, send, free = libpq.PQgetCancel, libpq.PQcancel, libpq.PQfreeCancel
    get.restype, free.argtypes, send.argtypes = c_void_p, (c_void_p,), (c_void_p, c_char_p, c_int)
    key, text = get(c_void_p(pgconn.pgconn_ptr)), create_string_buffer(256)

    def request() -> None:
        if not send(key, text, len(text)):
            raise OperationalError(text.value.decode(errors="replace"))

    finalize(request, free, key).atexit = False
    return request
