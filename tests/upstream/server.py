"""Provides a PostgreSQL server on which psycopg2's suite can run."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2.extensions import make_dsn

from greenpg.embedded import EmbeddedServer

DSN_VARIABLE = "GREENPG_UPSTREAM_DSN"
DEBIAN = Path("/usr/lib/postgresql")
DATABASE = "psycopg2_test"


class ServerError(Exception):
    """There is no suitable server; the text says what to install or set."""


@contextmanager
def lent_server() -> Iterator[str]:
    """Yield the DSN of a private server, removed after the block, or GREENPG_UPSTREAM_DSN.

    The suite's prepared transactions have server-wide names, so that only one run at a time may
    use the user's server.
    """
    dsn = os.environ.get(DSN_VARIABLE)
    with _alone_on(dsn) if dsn else _private_server() as lent:
        yield lent


def newest_binaries() -> Path:
    """Return the bin directory of the newest installed PostgreSQL with contrib modules."""
    homes = [path.parents[1] for path in DEBIAN.glob("*/lib/test_decoding.so")]
    complete = [home / "bin" for home in homes if (home / "bin" / "initdb").exists()]
    if not complete:
        raise ServerError(
            f"no PostgreSQL server with contrib modules under {DEBIAN}: "
            f"install Debian's package postgresql, or set {DSN_VARIABLE}"
        )
    return max(complete, key=lambda path: float(path.parent.name))


@contextmanager
def _private_server() -> Iterator[str]:
    server = EmbeddedServer(binaries=newest_binaries())
    try:
        dsn = make_dsn(server.dsn, dbname=DATABASE)
        _execute(server.dsn, f"create database {DATABASE}")
        _execute(dsn, "create extension hstore")
        yield dsn
    finally:
        server.stop()


def _execute(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute(statement)


@contextmanager
def _alone_on(dsn: str) -> Iterator[str]:
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
        conn.autocommit = True
        cur.execute("select pg_try_advisory_lock(hashtext('psycopg2 suite'))")
        if cur.fetchone() != (True,):
            raise ServerError(f"another run of the suite is using {DSN_VARIABLE}'s server")
        yield dsn
