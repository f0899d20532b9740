"""The benchmarks' arithmetic and order, without a server."""

import re

import pytest

from greenpg_bench import syscalls
from greenpg_bench.drivers import DRIVERS
from greenpg_bench.hosts import HOSTS
from greenpg_bench.model import Contender, Sample, Target
from greenpg_bench.player import ContenderFailedError
from greenpg_bench.runner import Record, by_name, play
from greenpg_bench.stats import judge
from greenpg_bench.workloads import NAMES, find

AXIS = re.compile(r".+, \d+")
STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 36.75    0.035156           9      3904           sendto
  8.94    0.008551           2      3905      3840 epoll_ctl
------ ----------- ----------- --------- --------- ----------------
100.00    0.100000           3      7809      3840 total
"""


def test_a_ratio_is_taken_within_each_round():
    samples: dict[str, list[Sample | None]] = {
        "ours": [{"cpu": 1.0}, {"cpu": 8.0}, {"cpu": 3.0}],
        "theirs": [{"cpu": 2.0}, {"cpu": 10.0}, {"cpu": 4.0}],
    }

    verdict = judge(Target("ours", "cpu", 0.8, "theirs"), samples)

    assert verdict.values == (0.5, 0.8, 0.75)
    assert verdict.measured == 0.75
    assert verdict.met


def test_a_round_that_one_side_missed_does_not_count():
    samples: dict[str, list[Sample | None]] = {
        "ours": [None, {"cpu": 8.0}],
        "theirs": [{"cpu": 2.0}, {"cpu": 10.0}, {"send": 1.0}],
    }

    verdict = judge(Target("ours", "cpu", 1, "theirs", against="difference"), samples)

    assert verdict.values == (-2.0,)


@pytest.mark.parametrize(("at_least", "met"), [(True, True), (False, False)])
def test_a_target_without_a_peer_bounds_the_metric_itself(at_least, met):
    samples = {"ours": [{"rate": 3.0}]}

    verdict = judge(Target("ours", "rate", 2.0, at_least=at_least), samples)

    assert verdict.met is met


def test_what_nobody_measured_has_no_verdict():
    verdict = judge(Target("ours", "cpu", 1.0, "theirs"), {"ours": [{"cpu": 1.0}]})

    assert verdict.measured is None
    assert verdict.met is None


class Laps:
    """A contender's process that answers at once, or fails in lap `last`."""

    def __init__(self, contender, log, last=99):
        self.name = contender.name
        self.log = log
        self.last = last

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.log.append(f"end {self.name}")

    def lap(self):
        if not self.last:
            raise ContenderFailedError("no such thing")
        self.last -= 1
        self.log.append(self.name)
        return {"cpu": 1.0}


def test_every_second_round_runs_backwards():
    log: list[str] = []
    group = [Record(Contender("psycopg2", host)) for host in ("a", "b")]

    for _ in play(group, 2, lambda one: Laps(one, log)):
        pass

    assert log[:4] == ["psycopg2/a", "psycopg2/b", "psycopg2/b", "psycopg2/a"]
    assert sorted(log[4:]) == ["end psycopg2/a", "end psycopg2/b"]


def test_one_that_fails_is_left_out_from_then_on():
    broken, sound = Record(Contender("greenpg", "a")), Record(Contender("greenpg", "b"))

    for _ in play([broken, sound], 3, lambda one: Laps(one, [], 1 if one.host == "a" else 99)):
        pass

    assert broken.error == "no such thing"
    assert broken.samples == [{"cpu": 1.0}, None, None]
    assert sound.samples == [{"cpu": 1.0}] * 3


def test_one_that_cannot_start_is_an_error_of_its_own():
    records = [Record(Contender("greenpg", host)) for host in ("a", "b")]

    def start(contender):
        if contender.host == "a":
            raise ContenderFailedError("too many connections")
        return Laps(contender, [])

    for _ in play(records, 1, start):
        pass

    assert records[0].error == "too many connections"
    assert by_name(records) == {"greenpg/a": [None], "greenpg/b": [{"cpu": 1.0}]}


def test_one_not_installed_is_never_started():
    record = Record(Contender("asyncpg", "uvloop"), missing=("asyncpg",))

    for _ in play([record], 2, lambda one: pytest.fail("it ran")):
        pass

    assert record.samples == [None, None]


def test_the_table_of_strace_is_read():
    calls = syscalls.parse(STRACE)

    assert calls == {"sendto": 3904, "epoll_ctl": 3905}


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_consistent(name):
    workload = find(name)

    keys = {metric.key for metric in workload.metrics}
    groups = [{contender.name for contender in group} for group in workload.groups]
    contenders = [contender for group in workload.groups for contender in group]

    assert workload.name == name
    assert len({contender.name for contender in contenders}) == len(contenders)
    assert all(one.driver in DRIVERS and one.host in HOSTS for one in contenders)
    assert all(
        any({target.contender, target.peer or target.contender} <= group for group in groups)
        for target in workload.targets
    )
    assert all(target.metric in keys for target in workload.targets)
    assert not workload.axis or all(AXIS.fullmatch(one.variant) for one in contenders)
