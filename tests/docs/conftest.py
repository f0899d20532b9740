from collections.abc import Callable, Iterator

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg.embedded import running

DATABASE = "app"


class Server:
    """A server that belongs to the documentation's tests: each program has `app` to itself."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which `dbname=app` finds the server."""
        given = parse_dsn(self.dsn)
        return {f"PG{name.upper()}": given[name] for name in ("host", "port", "user")}

    def make_database(self) -> None:
        """Make the database anew, whoever is still connected to the last one."""
        conn = psycopg2.connect(make_dsn(self.dsn, connect_timeout=5))
        conn.autocommit = True
        with conn.cursor() as cur:
            for statement in ("drop database if exists {} with (force)", "create database {}"):
                cur.execute(sql.SQL(statement).format(sql.Identifier(DATABASE)))
        conn.close()

    def sessions(self) -> int:
        """How many sessions there are in the database."""
        conn = psycopg2.connect(self.dsn)
        with conn, conn.cursor() as cur:
            cur.execute("select count(*) from pg_stat_activity where datname = %s", (DATABASE,))
            (count,) = cur.fetchone() or (0,)
        conn.close()
        return int(count)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An embedded server, even beside a GREENPG_DSN: there, `app` may be somebody's."""
    with running() as made:
        yield Server(made.dsn)


@pytest.fixture
def fresh(server: Server) -> Callable[[], Server]:
    """Give the server with an empty database `app`."""

    def make() -> Server:
        server.make_database()
        return server

    return make
