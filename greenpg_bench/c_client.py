"""A client in C on psycopg2's libpq, built by the system's compiler: what no Python can beat."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psycopg2._psycopg

COMPILER: Final = "cc"
_SOURCE: Final = Path(__file__).with_name("epoll_client.c")
_FUNCTIONS: Final = (
    "PQsocket", "PQsendQuery", "PQconsumeInput", "PQisBusy", "PQgetResult", "PQgetvalue", "PQclear",
)  # fmt: skip


def _built() -> Any:
    with TemporaryDirectory() as place:
        library = Path(place, "client.so")
        subprocess.run([COMPILER, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
        return ctypes.CDLL(str(library))


def client(connections: list[Any]) -> Callable[[int], None]:
    """Return what executes `select 1` so many times on each connection."""
    built, libpq = _built(), ctypes.PyDLL(psycopg2._psycopg.__file__)
    addresses = [ctypes.cast(libpq[name], ctypes.c_void_p).value for name in _FUNCTIONS]
    table = (ctypes.c_void_p * len(_FUNCTIONS))(*addresses)
    conns = (ctypes.c_void_p * len(connections))(*(conn.pgconn_ptr for conn in connections))

    def lap(times: int) -> None:
        right = built.lap(table, conns, len(connections), times)
        if right != times * len(connections):
            raise RuntimeError(f"{right} right answers of {times * len(connections)}")

    return lap
