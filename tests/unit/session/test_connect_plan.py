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
    """Connection strings such as "host=one,two;port=5;timeout=3", and a service's entry."""

    error = Refused

    def __init__(self, **services):
        self.services = services

    def parse(self, dsn):
        return dict(part.split("=", 1) for part in dsn.split(";") if part)

    def make(self, params):
        return ";".join(f"{key}={value}" for key, value in params.items())

    def settings(self, dsn):
        given = self.parse(dsn)
        service = given.get("service") or os.environ.get("PGSERVICE", "")
        return {**self.services.get(service, {}), **given}

    def refusal(self, dsn):
        return f"odd: {dsn}" if "odd" in dsn else None


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
    return [fake.parse(one) for one, _ in plan(dsn, fake).attempts(resolve, failed)], failed


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
        ("host=one;port=many", True),
        ("host=one;port=0", True),
    ],
)
def test_one_address_at_most_is_left_to_libpq(given, simple):
    assert plan(given).simple is simple


@pytest.mark.parametrize(
    ("given", "seconds"), [("0", None), ("-1", None), ("7", 7.0), (" +7\n", 7.0)]
)
def test_timeout_is_in_whole_seconds(given, seconds):
    found = plan(f"connect_timeout={given}")

    assert (found.timeout, found.refusal) == (seconds, None)


@pytest.mark.parametrize(
    "given", ["", "soon", "7s", "7.5", "2147483648", "\N{ARABIC-INDIC DIGIT SEVEN}"]
)
def test_timeout_that_is_no_number_is_refused(given):
    refusal = plan(f"connect_timeout={given}").refusal

    assert refusal == f'invalid integer value "{given}" for connection option "connect_timeout"\n'


def test_parameters_that_the_driver_refuses_are_known_before_a_name_is_resolved():
    assert plan("host=one;sslmode=odd").refusal == "odd: host=one;sslmode=odd"
    assert plan("host=127.0.0.1;sslmode=odd").refusal is None


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


def test_random_order_leaves_no_address_out():
    params, _ = tried("host=one,two;load_balance_hosts=random")

    assert sorted(p["hostaddr"] for p in params) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_empty_parameters_stay():
    params, _ = tried("host=one,;password=;options=")

    assert params == [
        {"host": "one", "hostaddr": "10.0.0.1", "password": "", "options": ""},
        {"host": "one", "hostaddr": "10.0.0.2", "password": "", "options": ""},
        {"host": "", "password": "", "options": ""},
    ]


def test_empty_address_stands_against_that_of_a_service():
    params, _ = tried("host=one,two;service=app", app={"hostaddr": ",10.0.0.9", "port": "5"})

    assert [(p["host"], p["hostaddr"], p["port"]) for p in params] == [
        ("one", "10.0.0.1", "5"),
        ("one", "10.0.0.2", "5"),
        ("two", "10.0.0.9", "5"),
    ]
    (params, _), _ = tried("host=/tmp,/run;service=app", app={"hostaddr": ","})
    assert params == {"host": "/tmp", "service": "app", "hostaddr": ""}


def test_host_after_a_port_that_is_no_number_is_not_tried():
    params, _ = tried("host=one,two,one;port=70000,many,5")

    assert [(p["host"], p["port"]) for p in params] == [("one", "70000"), ("two", "many")]
    assert all("hostaddr" not in p for p in params)


def test_name_that_cannot_be_a_name_is_passed_over():
    def resolve(host, port):
        return [row[4][0] for row in socket.getaddrinfo(host, port)]

    failed: list[str] = []

    attempts = list(plan("host=ü..test,127.0.0.1").attempts(resolve, failed))

    assert attempts == [("host=127.0.0.1", False)]
    assert "ü..test" in failed[0]


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


def test_refusal_is_not_cached():
    """It may be for lack of descriptors."""
    fake = Fake()

    with patch.object(fake, "refusal", lambda dsn: "not today"):
        refused = plan("host=one", fake)

    assert (refused.refusal, plan("host=one", fake).refusal) == ("not today", None)


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
