from collections.abc import Callable, Iterator

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg.embedded import running

DATABASE = "app"


class Server:
    """A server for the documentation's tests only: each program has a new database `app`."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables with which `dbname=app` connects to the server."""
        given = parse_dsn(self.dsn)
        return {f"PG{name.upper()}": given[name] for name in ("host", "port", "user", "passfile")}

    def make_database(self) -> None:
        """Make a new database; terminate the sessions of the old one."""
        conn = psycopg2.connect(make_dsn(self.dsn, connect_timeout=5))
        conn.autocommit = True
        with conn.cursor() as cur:
            for statement in ("drop database if exists {} with (force)", "create database {}"):
                cur.execute(sql.SQL(statement).format(sql.Identifier(DATABASE)))
        conn.close()

    def sessions(self) -> int:
        """Return the number of sessions in the database."""
        conn = psycopg2.connect(self.dsn)
        with conn, conn.cursor() as cur:
            cur.execute("select count(*) from pg_stat_activity where datname = %s", (DATABASE,))
            (count,) = cur.fetchone() or (0,)
        conn.close()
        return int(count)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An embedded server, even if GREENPG_DSN is set: that server's `app` may be in use."""
    with running() as made:
        yield Server(made.dsn)


@pytest.fixture
def fresh(server: Server) -> Callable[[], Server]:
    """A function that returns the server with an empty database `app`."""

    def make() -> Server:
        server.make_database()
        return server

    return make
