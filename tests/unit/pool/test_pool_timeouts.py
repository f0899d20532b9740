"""The time that a pool gives a connect: the user's, else one that frees the slot."""

from __future__ import annotations

import os

import pytest

from greenpg.backend import current
from greenpg.pool import _psycopg2

FIVE = {"connect_timeout": 5}
NINE = {"connect_timeout": 9}


class Asked(Exception):
    pass


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
    monkeypatch, tmp_path, conninfo, given, environment, expected
):
    (tmp_path / "services").write_text("[timed]\nconnect_timeout=0\n[plain]\nport=1\n")
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = {}

    def connect(dsn, **options):
        asked.update(options)
        raise Asked

    monkeypatch.setattr(_psycopg2, "connect", connect)
    hooks = dict.fromkeys(("configure", "on_check", "on_connect", "on_discard"))
    connections = _psycopg2.Psycopg2Connections(conninfo, given, current, "none", **hooks)

    with pytest.raises(Asked):
        connections.connect()

    asked.pop("backend")
    assert asked == expected
