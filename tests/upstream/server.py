"""Lends a PostgreSQL server that psycopg2's suite can run on."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from psycopg2.extensions import make_dsn

DSN_VARIABLE = "GREENPG_UPSTREAM_DSN"
_DATABASE = "psycopg2_test"
_DEBIAN = Path("/usr/lib/postgresql")
_CLUSTER = Path(__file__).with_name("cluster.py")


class ServerError(Exception):
    """No server to run on; the text says what to install or set."""


@contextmanager
def lent_server() -> Iterator[str]:
    """The DSN of a fresh private server, gone when the block ends, or of the one named by the user.

    The suite's prepared transactions have server-wide names: one run at a time on the user's.
    """
    if dsn := os.environ.get(DSN_VARIABLE):
        with _alone_on(dsn):
            yield dsn
    else:
        with _private_cluster(newest_bin()) as dsn:
            yield dsn


def newest_bin(root: Path = _DEBIAN) -> Path:
    """The programs of the newest installed PostgreSQL that has the contrib modules."""
    found = [
        path.parent.parent / "bin"
        for path in root.glob("*/lib/test_decoding.so")
        if (path.parent.parent / "bin" / "initdb").exists()
    ]
    if not found:
        raise ServerError(
            f"no PostgreSQL server with contrib modules under {root}: "
            f"install Debian's package postgresql, or set {DSN_VARIABLE}"
        )
    return max(found, key=lambda path: float(path.parent.name))


@contextmanager
def _alone_on(dsn: str) -> Iterator[None]:
    conn = psycopg2.connect(dsn)
    try:
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute("select pg_try_advisory_lock(hashtext('psycopg2 suite'))")
            if cur.fetchone() != (True,):
                raise ServerError(f"another run of the suite is using {DSN_VARIABLE}'s server")
        yield
    finally:
        conn.close()


@contextmanager
def _private_cluster(bin_directory: Path) -> Iterator[str]:
    """A cluster kept by a process of its own, which removes it once our end of a pipe closes."""
    keeper = subprocess.Popen(
        [sys.executable, str(_CLUSTER), str(bin_directory), str(port := _free_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; the cluster goes when we have ended
        text=True,
    )
    with keeper:
        assert keeper.stdout
        if keeper.stdout.readline() != "ready\n":
            raise ServerError("the private PostgreSQL server did not start")
        server = make_dsn(host="127.0.0.1", port=port, user="postgres")
        _create_database(server)
        yield make_dsn(server, dbname=_DATABASE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _create_database(server: str) -> None:
    for dbname, statement in (
        ("postgres", f"create database {_DATABASE}"),
        (_DATABASE, "create extension hstore"),
    ):
        conn = psycopg2.connect(server, dbname=dbname)
        try:
            conn.autocommit = True
            conn.cursor().execute(statement)
        finally:
            conn.close()
