"""What the user gave is what counts: connection strings, the environment, service files."""

from __future__ import annotations

import os
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import extensions as ext
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg._psycopg2.psycopg2_c import c_connect

HERE = "127.0.0.1"


@pytest.fixture
def server(dsn, monkeypatch):
    """The test server's parameters for TCP, with nothing set in the environment."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    return {**parse_dsn(dsn), "host": HERE, "sslmode": "disable"}


def blocking(dsn):
    """Connect as psycopg2 does by itself."""
    callback = ext.get_wait_callback()
    ext.set_wait_callback(None)
    try:
        return closing(c_connect(dsn, None, False))
    finally:
        ext.set_wait_callback(callback)


def settings(conn):
    with conn.cursor() as cur:
        cur.execute("select current_setting('work_mem'), current_setting('application_name')")
        return (*cur.fetchone(), conn.info.password)


@pytest.mark.parametrize("attributes", [{}, {"target_session_attrs": "prefer-standby"}])
@pytest.mark.parametrize(
    "hosts",
    [
        {"host": HERE},
        {"host": "localhost"},
        {"host": f"localhost,{HERE}"},
        {"host": "a,b", "hostaddr": f"{HERE},{HERE}"},
        {"host": None, "hostaddr": f"{HERE},{HERE}"},
    ],
)
def test_parameters_are_shown_as_they_were_given(connect, server, hosts, attributes):
    dsn = make_dsn(**{**server, **hosts, **attributes})
    with blocking(dsn) as plain:
        expected = plain.info.dsn_parameters

    conn = connect(dsn)

    assert conn.info.dsn_parameters == expected
    assert conn.get_dsn_parameters() == expected
    assert conn.info.port == int(server["port"])


def test_parameters_of_an_asynchronous_connection_are_shown_as_they_were_given(connect, server):
    dsn = make_dsn(**{**server, "host": f"localhost,{HERE}"})
    with blocking(dsn) as plain:
        expected = plain.info.dsn_parameters

    conn = connect(dsn, async_=1)
    psycopg2.extras.wait_select(conn)

    assert conn.info.dsn_parameters == expected


@pytest.mark.parametrize("hosts", [HERE, "localhost", f"{HERE},{HERE}"])
def test_empty_parameter_stands_against_the_environment(connect, server, monkeypatch, hosts):
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=12345kB")
    monkeypatch.setenv("PGAPPNAME", "environment")
    monkeypatch.setenv("PGPASSWORD", "environment")
    empty = {"options": "", "application_name": "", "password": ""}
    dsn = make_dsn(**{**server, "host": hosts, **empty})
    with blocking(dsn) as plain:
        expected = settings(plain)

    conn = connect(dsn)

    assert settings(conn) == expected
    assert expected[0] != "12345kB"
    assert "environment" not in expected


@pytest.mark.parametrize("given", ["", " "])
def test_dsn_without_a_parameter_is_shown_as_given(connect, server, monkeypatch, given):
    for key, name in {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER"}.items():
        monkeypatch.setenv(name, {**server, "host": "localhost"}[key])
    monkeypatch.setenv("PGDATABASE", server["dbname"])
    if "passfile" in server:
        monkeypatch.setenv("PGPASSFILE", server["passfile"])

    conn = connect(given)

    assert conn.dsn == given
    assert f"dsn: {given!r}," in str(conn)
    assert str(conn) == repr(conn)
    assert conn.info.host == "localhost"


@pytest.mark.parametrize("host", [HERE, "localhost"])
@pytest.mark.parametrize("home", ["given", "environment"])
def test_timeout_that_is_no_number_is_refused(db, server, monkeypatch, host, home):
    if home == "given":
        server["connect_timeout"] = "abc"
    else:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "abc")

    with pytest.raises(db.OperationalError, match='invalid integer value "abc" for connection opt'):
        db.connect(make_dsn(**{**server, "host": host}))


def test_service_leaves_the_environment_alone_while_connecting(
    connect, server, monkeypatch, tmp_path
):
    """Other OS threads, and whatever they start, see the same environment."""
    entry = [f"{key}={value}" for key, value in {**server, "host": "localhost"}.items()]
    file = tmp_path / "services"
    file.write_text("\n".join(("[here]", *entry, "")))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGSERVICE", "there")
    changes = []
    monkeypatch.setattr(os, "putenv", lambda *args: changes.append(args))
    monkeypatch.setattr(os, "unsetenv", lambda *args: changes.append(args))

    conn = connect("service=here")

    monkeypatch.undo()
    assert conn.info.host == "localhost"
    assert conn.dsn == "service=here"
    assert changes == []
