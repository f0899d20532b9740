"""The hosts that a plan tries, for a driver with invented connection strings."""

from __future__ import annotations

import os
import socket
from unittest.mock import patch

import pytest

from greenpg._session import connect_plan

ADDRESSES = {"one": ["10.0.0.1", "10.0.0.2"], "two": ["10.0.0.3"]}


class Refused(Exception):
    pass


class Fake:
    """Connection strings such as "host=one,two;port=5;timeout=3", and a service's defaults."""

    error = Refused

    def __init__(self, **services):
        self.services = services
        self.read = 0

    def parse(self, dsn):
        self.read += 1
        return dict(part.split("=", 1) for part in dsn.split(";") if part)

    def make(self, params):
        return ";".join(f"{key}={value}" for key, value in params.items())

    def defaults(self, service):
        return self.services.get(service or os.environ.get("PGSERVICE", ""), {})


def plan(dsn, conninfo=None):
    return connect_plan.plan(dsn, Fake() if conninfo is None else conninfo)


def resolve(host, port):
    if host not in ADDRESSES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return ADDRESSES[host]


def tried(dsn, **services):
    """Return the parameters of each attempt, and the texts of those that failed before."""
    failed: list[str] = []
    fake = Fake(**services)
    return [fake.parse(one) for one in plan(dsn, fake).attempts(resolve, failed)], failed


@pytest.mark.parametrize(
    ("given", "simple"),
    [
        ("dbname=app", True),
        ("host=/tmp", True),
        ("host=@abstract", True),
        ("host=127.0.0.1", True),
        ("host=fe80::1%eth0", True),
        ("host=one", False),
        ("host=one;hostaddr=10.0.0.1", True),
        ("host=127.0.0.1,127.0.0.2", False),
        ("hostaddr=10.0.0.1,10.0.0.2", False),
        ("host=127.0.0.1,127.0.0.2;port=1,2,3", True),  # libpq refuses it
        ("host=127.0.0.1,127.0.0.2;port=many", True),
    ],
)
def test_one_address_at_most_is_left_to_libpq(given, simple):
    assert plan(given).simple is simple


@pytest.mark.parametrize(
    ("given", "seconds"), [("", None), ("0", None), ("-1", None), ("soon", None), ("7", 7.0)]
)
def test_timeout_is_in_whole_seconds(given, seconds):
    assert plan(f"connect_timeout={given}").timeout == seconds


def test_each_address_is_tried_in_order_with_its_hosts_name_and_port():
    params, failed = tried("host=one,two;port=5,6;user=app")

    assert [(p["host"], p["hostaddr"], p["port"]) for p in params] == [
        ("one", "10.0.0.1", "5"),
        ("one", "10.0.0.2", "5"),
        ("two", "10.0.0.3", "6"),
    ]
    assert {p["user"] for p in params} == {"app"}
    assert not failed


def test_name_that_cannot_be_resolved_is_passed_over():
    params, failed = tried("host=three,two")

    assert [p["host"] for p in params] == ["two"]
    assert failed == ['could not translate host name "three" to address: Name or service not known']


def test_standby_is_preferred_by_a_first_pass_over_all_hosts():
    params, _ = tried("host=one,two;target_session_attrs=prefer-standby")

    assert [p["target_session_attrs"] for p in params] == ["standby"] * 3 + ["any"] * 3


def test_random_order_is_the_plans_and_not_libpqs():
    params, _ = tried("host=one,two;load_balance_hosts=random")

    assert sorted(p["hostaddr"] for p in params) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert all("load_balance_hosts" not in p for p in params)


def test_all_addresses_go_into_one_string_for_a_driver_that_tries_them_itself():
    fake = Fake()

    combined = fake.parse(plan("host=one,two;port=5,6", fake).combined(resolve))

    assert combined == {
        "host": "one,one,two",
        "hostaddr": "10.0.0.1,10.0.0.2,10.0.0.3",
        "port": "5,5,6",
    }


def test_names_of_which_none_is_known_are_the_drivers_error():
    with pytest.raises(Refused, match='"three"'):
        plan("host=three,four").combined(resolve)


def test_defaults_of_a_service_stand_behind_what_is_given():
    params, _ = tried("service=app;port=7", app={"host": "one", "port": "5"})

    assert [(p["host"], p["port"]) for p in params] == [("one", "7")] * 2


def test_plan_of_a_connection_string_is_cached():
    fake = Fake()

    assert plan("host=127.0.0.1", fake) is plan("host=127.0.0.1", fake)
    assert fake.read == 1


@pytest.mark.parametrize("named_by", ["dsn", "environment"])
def test_plan_that_depends_on_a_service_file_is_not_cached(named_by):
    fake = Fake(app={"connect_timeout": "3"})
    dsn = "service=app" if named_by == "dsn" else "dbname=app"

    with patch.dict(os.environ, {"PGSERVICE": "app"} if named_by == "environment" else {}):
        before = plan(dsn, fake)
        fake.services["app"] = {"connect_timeout": "5"}
        after = plan(dsn, fake)

    assert (before.timeout, after.timeout) == (3.0, 5.0)


def test_password_is_neither_in_the_plans_text_nor_in_the_public_string():
    found = plan("host=127.0.0.1;password=hunter2")

    assert "hunter2" not in repr(found)
    assert found.public_dsn() == "host=127.0.0.1;password=xxx"
