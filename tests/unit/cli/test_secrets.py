"""Connection strings may hold a password: no child's arguments contain one."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from greenpg.embedded import EmbeddedServer, supervisor
from greenpg_bench.publisher import Publisher
from greenpg_conformance.harness.context import Context
from greenpg_conformance.storm.soaking import in_child

SECRET = "hunter2"
DSN = f"host=127.0.0.1 port=1 user=postgres password={SECRET}"
MODE = SimpleNamespace(prelude="", environ={})


def publish(directory):
    Publisher(DSN, "channel")


def soak(directory):
    in_child(SimpleNamespace(backend="fake"), MODE, DSN, 1, 1, "fake", "soak(dsn)")


def run_program(directory):
    around: Any = SimpleNamespace(
        backend=None, description=None, dsn=DSN, application="a", observer=None, which="fake",
        mode=MODE,
    )  # fmt: skip
    Context(around, 1, print).python("connect()")


def start_standby(directory):
    EmbeddedServer(binaries=directory, source=DSN)


def copy_primary(directory):
    cluster = object.__new__(supervisor.Cluster)
    cluster._bin = cluster._directory = directory
    cluster._data, cluster._log = directory / "data", directory / "log"
    cluster._source, cluster._owner = DSN, None
    cluster._fill()


class Started(Exception):
    pass


@pytest.mark.parametrize("start", [publish, soak, run_program, start_standby, copy_primary])
def test_secret_is_passed_in_the_environment(monkeypatch, tmp_path, start):
    calls = []

    def popen(command, *args, **options):
        calls.append((list(map(str, command)), options["env"]))
        raise Started

    monkeypatch.setattr(subprocess, "Popen", popen)

    with pytest.raises(Started):
        start(tmp_path)

    ((arguments, environment),) = calls
    assert SECRET not in " ".join(arguments)
    assert any(SECRET in value for value in environment.values())
