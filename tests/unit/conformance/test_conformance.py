"""The harness of the conformance suite: outcomes, cases, descriptions of backends."""

import sys
import traceback

import pytest

from greenpg import backend as backends
from greenpg.cli import main
from greenpg.errors import BackendError
from greenpg_conformance.harness import describe, drivers
from greenpg_conformance.harness.describe import Mode, find
from greenpg_conformance.harness.results import Column, Result, failed, summary, verdict
from greenpg_conformance.harness.runner import Suite
from greenpg_conformance.harness.tests import (
    Skip,
    cases_of,
    discover,
    each,
    over_psycopg,
    raises,
)
from greenpg_conformance.toolkit.watchdog import stacks

COLUMN = Column("threads", "plain")


@pytest.fixture
def no_cffi(monkeypatch):
    monkeypatch.setattr(describe, "find_spec", lambda name: None)


def results(*outcomes):
    return [Result(COLUMN, "module.test", f"module.test[{n}]", o) for n, o in enumerate(outcomes)]


def test_each_test_has_a_name_of_its_own():
    ids = [test.id for test in discover()]

    assert len(ids) == len(set(ids)) > 100


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "lacking"], "pass"),
        (["pass", "skip"], "skip"),
        (["skip", "fail", "pass"], "fail"),
        (["fail", "hang"], "hang"),
        ([], ""),
    ],
)
def test_row_shows_the_worst_of_its_cases(outcomes, worst):
    assert verdict(outcomes) == worst


@pytest.mark.parametrize(
    ("outcome", "strict", "bad"),
    [
        ("pass", True, False),
        ("lacking", True, False),
        ("skip", True, True),
        ("skip", False, False),
        ("fail", False, True),
        ("hang", False, True),
    ],
)
def test_skip_fails_only_a_strict_suite_and_a_missing_capability_none(outcome, strict, bad):
    assert failed(results("pass", outcome), strict) == bad


def test_summary_counts_a_hang_as_failed():
    assert summary(results("pass", "hang", "fail", "skip", "lacking")) == (
        "1 passed, 2 failed, 2 skipped"
    )


def _traceback_of(fn):
    try:
        fn()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it raised nothing")


def _storm():
    try:
        raise KeyError("first")
    except KeyError as err:
        raise AssertionError("seed 5: it hangs after\n  by TCP\n  select, tx") from err


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        (
            _traceback_of(_storm),
            "threads/plain storm: AssertionError: seed 5: it hangs after ... select, tx",
        ),
        (_traceback_of(lambda: [].pop()), "threads/plain storm: IndexError: pop from empty list"),
        (
            "it hung, after: storm, seed 7\nThread 1:\n",
            "threads/plain storm: it hung, after: storm, seed 7",
        ),
    ],
)
def test_headline_is_the_error_of_a_failure(detail, line):
    assert Result(COLUMN, "storm", "storm", "fail", 0.0, detail).headline == line


def test_raises_fails_where_nothing_or_something_else_is_raised():
    with pytest.raises(AssertionError, match="ValueError expected"), raises(ValueError):
        pass
    with pytest.raises(KeyError), raises(ValueError):
        raise KeyError
    with pytest.raises(AssertionError, match="'seven'"), raises(ValueError, words="seven"):
        raise ValueError("six")


def test_raises_keeps_what_was_raised():
    error = ValueError("seven")

    with raises(ValueError, KeyError, words="seven") as caught:
        raise error

    assert caught.error is error


def test_cases_become_arguments():
    heard = []

    @each("one", "two")
    def test(ctx, case):
        heard.append((ctx, case))

    for made in cases_of("module", test):
        made.run("context")

    assert heard == [("context", "one"), ("context", "two")]


def test_test_over_psycopg_runs_with_both_drivers():
    @over_psycopg("b", "c")
    @each("a", "b")
    def test_it(ctx, case): ...

    found = cases_of("module", test_it)

    assert [test.id for test in found] == [
        "module.it[a]", "module.it[b]", "module.it[psycopg 3: b]", "module.it[psycopg 3: c]",
    ]  # fmt: skip
    assert [test.driver for test in found] == [*["psycopg2"] * 2, *["psycopg"] * 2]


def test_cases_over_psycopg_are_the_same_by_default():
    @over_psycopg()
    @each("a")
    def test_it(ctx, case): ...

    assert [test.id for test in cases_of("m", test_it)] == ["m.it[a]", "m.it[psycopg 3: a]"]


def test_missing_psycopg_is_a_skip_that_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("greenpg.psycopg3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(Skip, match=r"pip install 'greenpg\[psycopg3\]'"):
        drivers.find("psycopg")


def test_stacks_show_where_this_thread_is():
    assert "test_stacks_show_where_this_thread_is" in stacks()


@pytest.mark.parametrize("which", ["no such", "no.such.module:backend", "greenpg.threads:no_such"])
def test_unknown_backend_is_named(which):
    with pytest.raises(BackendError, match=which.rpartition(".")[2]):
        find(which)


@pytest.mark.usefixtures("no_cffi")
def test_mode_whose_library_is_missing_is_named_and_left_out(capsys):
    assert main(["conformance", "gevent", "--list"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("left out: gevent/libuv, gevent/libuv-patched: not installed: cffi")
    assert "gevent/libev" in said
    assert "gevent/libuv" not in said


@pytest.mark.usefixtures("no_cffi")
@pytest.mark.parametrize("words", [["gevent", "--strict"], ["gevent/libuv"]])
def test_mode_that_is_asked_for_is_not_left_out(words, capsys):
    assert main(["conformance", *words, "--list"]) == 1

    assert capsys.readouterr().err.endswith("not installed: cffi; pip install cffi\n")


def test_backend_whose_library_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.setitem(sys.modules, "greenpg_eventlet", None)

    assert main(["conformance", "--list"]) == 0

    said = capsys.readouterr().out
    assert "left out: backend 'eventlet' cannot be loaded" in said
    assert "eventlet/" not in said


def test_child_that_dies_shows_the_error_of_its_traceback():
    suite = Suite(discover(["rules"])[:2], "", 7, lambda _: None)

    first, second = suite.run([(COLUMN, Mode("plain", prelude="import no_such_library"))], 1)

    assert first.outcome == second.outcome == "fail"
    assert first.headline.endswith(
        "(status 1): ModuleNotFoundError: No module named 'no_such_library'"
    )
