"""The plan of psycopg2's connection strings: libpq's parser, environment and service files."""

import os
from unittest.mock import patch

import pytest
from psycopg2 import ProgrammingError

from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._session import connect_plan

TIMEOUTS = ("[reports]\nhost=127.0.0.1\nconnect_timeout={}\n", 3.0, 5.0)


def plan(dsn):
    return connect_plan.plan(dsn, CONNINFO)


def test_connection_strings_are_read_and_made_as_by_psycopg2():
    params = {"host": "127.0.0.1", "dbname": "an app"}

    assert CONNINFO.parse(CONNINFO.make(params)) == params


def test_error_of_a_connection_string_is_psycopg2s():
    with pytest.raises(ProgrammingError, match="invalid dsn"):
        plan("no dsn at all")


@pytest.mark.parametrize(
    ("name", "value", "timeout", "simple"),
    [
        ("PGCONNECT_TIMEOUT", "7", 7.0, True),
        ("PGHOST", "127.0.0.1,127.0.0.2", None, False),
        ("PGHOST", "db.greenpg.test", None, False),
    ],
)
def test_environment_counts_as_it_is_at_each_connect(name, value, timeout, simple):
    before = plan("dbname=app")

    with patch.dict(os.environ, {name: value}):
        meanwhile = plan("dbname=app")
    after = plan("dbname=app")

    assert (meanwhile.timeout, meanwhile.simple) == (timeout, simple)
    assert (before.timeout, before.simple) == (after.timeout, after.simple) == (None, True)


@pytest.mark.parametrize("named_by", ["dsn", "environment"])
def test_service_file_is_read_at_each_connect(tmp_path, named_by):
    text, one, other = TIMEOUTS
    file = tmp_path / "services.conf"
    environ = {"PGSERVICEFILE": str(file)}
    dsn = "service=reports" if named_by == "dsn" else "dbname=app"
    if named_by == "environment":
        environ["PGSERVICE"] = "reports"

    with patch.dict(os.environ, environ):
        file.write_text(text.format(int(one)))
        before = plan(dsn)
        file.write_text(text.format(int(other)))
        after = plan(dsn)

    assert (before.timeout, after.timeout) == (one, other)
