"""Keeps a workload's client and server on one core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2

ADDRESS = "select pg_backend_pid(), coalesce(host(inet_server_addr()), '127.0.0.1')"


@contextmanager
def one_core(dsn: str) -> Iterator[bool]:
    """Keep this process's children and the server's new sessions on one core; Linux only.

    Else each statement wakes another core for the server, and the system charges the client
    with that, often with more than all the driver does. Gives False where the server is not
    on this machine or not ours to move: the client alone is kept on a core then.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    server = _postmaster(dsn)
    before = {pid: os.sched_getaffinity(pid) for pid in (0, server) if pid is not None}
    try:
        yield [_moved(pid, {max(before[0])}) for pid in before] == [True, True]
    finally:
        for pid, cores in before.items():
            _moved(pid, cores)


def _moved(pid: int, cores: set[int]) -> bool:
    with suppress(OSError):  # another user's, or it has ended
        os.sched_setaffinity(pid, cores)
        return True
    return False


def _postmaster(dsn: str) -> int | None:
    """Return the parent of a session's process, if it is a PostgreSQL of this machine."""
    try:
        connection = psycopg2.connect(dsn)
    except psycopg2.Error:  # which each contender will tell
        return None
    try:
        with connection.cursor() as cur:
            cur.execute(ADDRESS)
            [(pid, address)] = cur.fetchall()
            return _parent(pid) if address in ("127.0.0.1", "::1") else None
    finally:
        connection.close()


def _parent(pid: int) -> int | None:
    with suppress(OSError):  # behind a forwarded port: not of this machine
        name, fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
        return int(fields.split()[1]) if "postgres" in name else None
    return None
