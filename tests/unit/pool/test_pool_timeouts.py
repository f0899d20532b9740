"""The time that a pool gives a connect: the user's, else one that frees the slot."""

from __future__ import annotations

import os

import pytest

from greenpg._drivers import driver_named
from greenpg.backend import current
from greenpg.pool._managed import Connections

FIVE = {"connect_timeout": 5}
NINE = {"connect_timeout": 9}


class Asked(Exception):
    pass


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize(
    ("conninfo", "given", "environment", "expected"),
    [
        ("", {}, {}, FIVE),
        ("connect_timeout=0", {}, {}, {}),
        ("", NINE, {}, NINE),
        ("", {}, {"PGCONNECT_TIMEOUT": "0"}, {}),
        ("service=timed", {}, {}, {}),
        ("service=plain", {}, {}, FIVE),
        ("", {"service": "plain"}, {}, {"service": "plain", **FIVE}),
        ("", {}, {"PGSERVICE": "timed"}, {}),
        ("", {}, {"PGSERVICE": "plain"}, FIVE),
        ("service=plain", {}, {"PGCONNECT_TIMEOUT": "0"}, {}),
    ],
)
def test_connect_without_a_timeout_gets_one(
    monkeypatch, tmp_path, driver, conninfo, given, environment, expected
):
    (tmp_path / "services").write_text("[timed]\nconnect_timeout=0\n[plain]\nport=1\n")
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = {}

    def connect(conninfo, backend, options):
        asked.update(options)
        raise Asked

    found = driver_named(driver, "greenpg.pool")
    monkeypatch.setattr(found, "connect", connect)
    hooks = dict.fromkeys(("configure", "on_check", "on_connect", "on_discard"))
    connections = Connections(found, conninfo, given, current, "none", **hooks)

    with pytest.raises(Asked):
        connections.connect()

    assert asked == expected
