"""`greenpg bench`: each workload once, and contenders that fail."""

import json
import os
import subprocess
import sys

import pytest

from greenpg_bench.model import Contender, Job
from greenpg_bench.player import ContenderFailedError, Player
from greenpg_bench.workloads import NAMES, find

ONLY = {"distance": "*/gevent 1 ms, 100"}  # the others have one on eventlet


@pytest.mark.timeout(300)  # ten thousand tasks are slow on a busy machine
@pytest.mark.parametrize("name", NAMES)
def test_a_workload_runs_and_is_reported(name, dsn, tmp_path):
    report = tmp_path / "report.json"
    order = [sys.executable, "-m", "greenpg", "bench", dsn, "--workload", name]
    order += ["--only", ONLY.get(name, "greenpg/eventlet*"), "--rounds", "1", "--json", str(report)]

    done = subprocess.run(order, capture_output=True, text=True, check=False)
    headline = find(name).metrics[0]
    workload = json.loads(report.read_text())["workloads"][name]

    assert done.returncode == 0, done.stderr
    assert workload["contenders"]
    for contender in workload["contenders"].values():
        assert not contender["error"]
        assert contender["medians"][headline.key] >= 0


def test_a_missed_target_fails_the_check(dsn):
    unreachable = f"{dsn} dbname=no_such_database"
    order = [sys.executable, "-m", "greenpg", "bench", unreachable, "--check", "--quick"]
    order += ["--workload", "select1", "--only", "psycopg2/*"]

    done = subprocess.run(order, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "no_such_database" in done.stderr


def test_a_contender_that_cannot_connect_says_why(dsn):
    job = Job(Contender("psycopg2", "threads"), f"{dsn} dbname=no_such_database")

    with pytest.raises(ContenderFailedError, match="no_such_database"):
        Player("select1", job)


def test_the_shells_choice_of_a_loop_does_not_reach_a_contender(dsn, monkeypatch):
    monkeypatch.setitem(os.environ, "EVENTLET_HUB", "no_such_hub")

    with Player("select1", Job(Contender("psycogreen", "eventlet"), dsn)) as player:
        sample = player.lap()

    assert sample["rate"] > 0
