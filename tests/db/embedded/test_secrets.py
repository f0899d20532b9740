"""Who may use the embedded server: its owner, by a password or by the socket's folder."""

from __future__ import annotations

import stat
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg.embedded import EmbeddedServer, running
from tests.db.conftest import password_of


@pytest.fixture(scope="module")
def server():
    with running() as made:
        yield made


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_others_are_asked_for_a_password(server, monkeypatch):
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.setenv("PGPASSWORD", "guessed")
    stranger = {**parse_dsn(server.dsn), "passfile": "/nowhere"}

    for wish in ({}, {"replication": "true"}, {"dbname": "template1"}):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(make_dsn(**{**stranger, **wish}))


def test_secrets_are_in_files_that_others_cannot_read(server):
    files = [server.directory / name for name in ("pgpass", "verifier")]

    assert mode(server.directory) == 0o700
    assert [mode(file) for file in files] == [0o600, 0o600]
    assert password_of(server.dsn) not in server.dsn + files[1].read_text()


def test_server_asks_for_one_iteration(server):
    """More would be most of what a connect costs a client."""
    with closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cur:
        cur.execute("select rolpassword from pg_authid where rolname = 'postgres'")
        (stored,) = next(cur)

    assert stored.startswith("SCRAM-SHA-256$1:")


def test_every_connection_string_connects(server):
    for dsn in (server.dsn, server.socket_dsn):
        with closing(psycopg2.connect(dsn)) as conn:
            assert conn.info.status == 0


@pytest.mark.parametrize("given", ["passfile", "password"])
def test_standby_has_the_password_of_its_primary(server, given):
    dsn = server.dsn
    if given == "password":
        params = parse_dsn(dsn)
        params.pop("passfile")
        dsn = make_dsn(**params, password=password_of(server.dsn))

    standby = EmbeddedServer(source=dsn)
    try:
        with closing(psycopg2.connect(standby.dsn)) as conn, conn.cursor() as cur:
            cur.execute("select pg_is_in_recovery()")
            assert cur.fetchone() == (True,)
    finally:
        standby.stop()
