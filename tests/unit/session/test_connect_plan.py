"""What a connection string names, and that a remembered answer is not an old one."""

import os
from unittest.mock import patch

import pytest

from greenpg._session.connect_plan import plan

TIMEOUTS = ("[reports]\nhost=127.0.0.1\nconnect_timeout={}\n", 3.0, 5.0)


def test_plan_of_a_connection_string_is_remembered():
    assert plan("host=127.0.0.1 dbname=app") is plan("host=127.0.0.1 dbname=app")


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


def test_password_is_not_in_the_plans_text():
    assert "hunter2" not in repr(plan("host=127.0.0.1 password=hunter2"))
