"""Starts a PgBouncer for a test."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from .conftest import password_of, until

POOL_SIZE = 5
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin") or ""


class Bouncer:
    """PgBouncer on a port of its own, before a server."""

    def __init__(self, dsn, directory, mode):
        where = parse_dsn(dsn)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        users = directory / "users.txt"
        users.write_text(f'"{where["user"]}" "{password_of(dsn)}"\n')
        self._file = directory / "pgbouncer.ini"
        self._file.write_text(
            f"[databases]\n* = host={where['host']} port={where['port']}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
            f"default_pool_size = {POOL_SIZE}\nmax_client_conn = 100\nignore_startup_parameters = "
            "extra_float_digits\n"
        )
        directory.chmod(0o755)
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=self.port)
        self.start()

    def start(self):
        root = ["--user", "nobody"] if os.geteuid() == 0 else []  # it refuses root
        self._process = subprocess.Popen(
            [PGBOUNCER, "-q", *root, str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._listens, "pgbouncer listens")

    def _listens(self):
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self):
        self._process.kill()
        self._process.wait()


@contextmanager
def bouncing(dsn: str, directory: Path, mode: str = "transaction") -> Iterator[Bouncer]:
    """Run a PgBouncer before the server during the block; skips the test if that is impossible."""
    if not PGBOUNCER:
        pytest.skip("capability missing: pgbouncer is not installed")
    if "host" not in parse_dsn(dsn):
        pytest.skip("the test server is not reached over TCP")
    for parent in (directory, *directory.parents[:3]):
        parent.chmod(0o755)
    made = Bouncer(dsn, directory, mode)
    try:
        yield made
    finally:
        made.stop()
