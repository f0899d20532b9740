"""The command line: its words, errors and exit codes, and the parts of the demo's picture."""

import importlib
import os
import subprocess
import sys
from typing import Any

import pytest
from psycopg2 import __libpq_version__
from rich.console import Console

import greenpg
from greenpg import cli
from greenpg._command import KEYS, NOT_A_DSN, dsn_fault
from greenpg._helper_process import ChildError
from greenpg.cli import COMMANDS, main
from greenpg_bench.demo import command as demo
from greenpg_bench.demo.facts import facts
from greenpg_bench.demo.job import TICK, Job
from greenpg_bench.demo.picture import ASCII, Picture
from greenpg_bench.demo.record import Record

START = 1000.0
SECRET = "hunter2"
NEWER = {"require_auth", "load_balance_hosts", "sslnegotiation"}  # than the oldest libpq


@pytest.fixture
def record() -> Record:
    return Record(Job("threads", "greenpg", f"password={SECRET}", tasks=4, connections=2))


def play(record, *events):
    for what, at, *lane in events:
        record.note({"what": what, "at": START + at, "lane": lane[0] if lane else 0, "text": ""})


def shown(renderable, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def drawn(record, now, width=80, height=24):
    return shown(Picture(record, width, height, ASCII).draw(now), width)


def test_job_is_the_same_each_time():
    one, other = (Job("threads", driver, "") for driver in ("greenpg", "psycopg2"))

    assert one.lengths == other.lengths
    assert len(one.lengths) == 200


def test_best_time_is_the_busiest_connections():
    job = Job("threads", "greenpg", "", tasks=3, connections=2)
    first, second, third = job.lengths

    assert job.at_best == max(first + third, second)
    assert job.in_a_row == pytest.approx(first + second + third)


def test_query_that_queues_begins_when_its_connection_is_free(record):
    play(record, ("start", 0), ("begin", 0.1, 0), ("begin", 0.1, 0), ("end", 0.5, 0))
    waited = record.lanes[0].running_since()
    play(record, ("end", 0.7, 0))

    assert waited == pytest.approx(0.5)
    assert record.lanes[0].bars == [pytest.approx((0.1, 0.5)), pytest.approx((0.5, 0.7))]


def test_queries_at_once_are_counted(record):
    play(record, ("start", 0), ("begin", 0, 0), ("begin", 0.1, 1), ("end", 0.2, 0))
    play(record, ("begin", 0.2, 0), ("end", 0.3, 1), ("end", 0.4, 0), ("over", 0.4))

    assert record.at_once == 2
    assert record.done == 3
    assert record.wall == pytest.approx(0.4)


def test_queries_one_after_the_other_are_not_at_once(record):
    play(record, ("start", 0), ("begin", 0, 0), ("end", 0.25, 0), ("begin", 0.25, 1))
    play(record, ("end", 0.5, 1))

    assert record.at_once == 1


def test_stall_is_how_late_a_tick_comes(record):
    play(record, ("tick", -1), ("start", 0), ("tick", TICK), ("tick", 0.5), ("over", 0.5))

    assert record.longest_stall == pytest.approx(0.5 - 2 * TICK)
    assert record.stall(0.5 + TICK) == pytest.approx(0)


def test_tick_after_the_end_shows_the_stall_before_it(record):
    play(record, ("start", 0), ("over", 3), ("tick", 3))

    assert record.longest_stall == pytest.approx(3 - TICK)


@pytest.mark.parametrize("width", [40, 80, 140])
def test_picture_fits_its_screen(record, width):
    play(record, ("start", 0), ("begin", 0, 0), ("end", 0.05, 0), ("begin", 0.05, 1))

    lines = drawn(record, 0.08, width).splitlines()

    assert max(map(len, lines)) <= width
    assert len(lines) == 6


def test_picture_shows_queries_and_ticks_in_their_place(record):
    span = record.job.at_best * 1.1
    events = [("begin", 0, 0), ("end", span / 4, 0), ("begin", span / 2, 1), ("tick", span / 2)]
    play(record, ("start", 0), *events)

    first, second, ticker = drawn(record, span * 0.75).splitlines()[1:4]

    assert "#" * 16 in first
    assert "1/2" in first
    assert ticker[second.index("-")] == "."
    assert ticker[second.index("-") - 1] == " "


def test_picture_scrolls_past_its_span(record):
    span = record.job.at_best * 1.1
    play(record, ("start", 0), ("begin", 0, 0), ("end", span / 2, 0))

    assert "#" in drawn(record, span)
    assert "#" not in drawn(record, span * 2)


def test_picture_leaves_out_what_does_not_fit():
    crowd = Record(Job("threads", "greenpg", "", tasks=100, connections=100))

    text = drawn(crowd, 0.0, height=24)

    assert len(text.splitlines()) <= 24
    assert "and 83 more connections" in text


def test_facts_fit_eighty_columns(record):
    play(record, ("start", 0), ("begin", 0, 0), ("end", 12.5, 0), ("over", 12.5))

    row = next(line for line in shown(facts([record])).splitlines() if "threads" in line)

    assert row.split()[:5] == ["greenpg", "on", "threads", "12.50", "s"]
    assert row.rstrip().endswith("0/1250")


def test_facts_of_a_failed_run_are_its_reason(record):
    record.error = "no such [table]"

    assert "greenpg on threads: no such [table]" in shown(facts([record]))


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])

    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("demo", "doctor", "bench", "conformance"))


def test_version_shows_all_three(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])

    said = capsys.readouterr().out
    assert f"greenpg {greenpg.version}, psycopg2 {greenpg.__version__}" in said
    assert f"libpq {__libpq_version__}" in said


def test_no_words_print_the_help(capsys):
    assert main([]) == 0

    assert "check whether this environment" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["no-such-command"], ["demo", "--tasks", "0"]])
def test_wrong_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)

    assert end.value.code == 2
    assert "usage: greenpg" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "driver"), [([], False), (["--all"], True)])
def test_conformance_runs_the_driver_part_only_on_demand(words, driver, capsys):
    assert main(["conformance", "threads", "--list", *words]) == 0

    said = capsys.readouterr().out
    assert "waits.data_ends_a_wait" in said
    assert "storm.random_interrupts" in said
    assert ("forks.fork_under_load" in said) == driver


def test_pattern_for_the_driver_part_names_the_option(capsys):
    assert main(["conformance", "threads", "-k", "forks.*"]) == 1

    assert "--all adds those of the driver" in capsys.readouterr().err


@pytest.fixture
def no_rich(monkeypatch):
    for module, _ in COMMANDS.values():
        monkeypatch.delitem(sys.modules, module, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)


@pytest.mark.usefixtures("no_rich")
@pytest.mark.parametrize("command", ["demo", "top", "bench", "conformance"])
def test_missing_rich_names_the_extra(command, capsys):
    code = main([command])

    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"greenpg {command}: needs rich; pip install 'greenpg[cli]'")


@pytest.mark.usefixtures("no_rich")
def test_doctor_requires_no_rich(capsys):
    code = main(["doctor", "host=127.0.0.1 port=1", "--backend", "no_such:backend"])

    assert code == 1
    assert "not green: server: PostgreSQL" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "doctor", "bench", "conformance"])
@pytest.mark.parametrize("words", [["dbname=app"], ["--dsn", "dbname=app"]])
def test_dsn_is_an_argument_or_an_option(command, words, monkeypatch):
    given: list[Any] = []
    module = importlib.import_module(COMMANDS[command][0])
    monkeypatch.setattr(module, "run", given.append)

    main([command, *words])

    (args,) = given
    assert "dbname=app" in (args.dsn, *getattr(args, "words", []))


@pytest.mark.parametrize("command", ["demo", "doctor", "bench"])
def test_two_dsns_are_refused(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "dbname=app", "--dsn", "dbname=other"])

    assert end.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_two_dsns_of_the_suite_are_refused(capsys):
    assert main(["conformance", "threads", "dbname=app", "--list", "--dsn", "dbname=b"]) == 1

    assert "give one connection string" in capsys.readouterr().err


def test_help_does_not_import_the_commands(monkeypatch):
    def refuse(name):
        raise AssertionError(name)

    monkeypatch.setattr(cli, "import_module", refuse)

    with pytest.raises(SystemExit) as end:
        main(["--help"])

    assert end.value.code == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ChildError("did not start"), 1, "did not start"),
        (ModuleNotFoundError("pip install 'greenpg[server]'"), 1, "greenpg[server]"),
    ],
)
def test_error_of_a_command_is_printed_in_one_line(error, code, text, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(importlib.import_module("greenpg_bench.demo.command"), "run", fail)

    assert main(["demo"]) == code

    assert capsys.readouterr().err == f"greenpg demo: {text}\n".replace(text, str(error) or text)


@pytest.mark.parametrize(
    "given",
    [f"postgres//me:{SECRET}@host/db", f"host=h {SECRET}", f"postgresql://h/db?{SECRET}=1"],
)
@pytest.mark.parametrize("command", ["demo", "doctor", "bench", "conformance"])
def test_refused_dsn_is_not_quoted(given, command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--dsn", given])

    said = capsys.readouterr()
    assert end.value.code == 2
    assert "DSN is neither" in said.err
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize("command", ["demo", "doctor", "bench", "conformance"])
def test_unknown_key_of_a_dsn_is_named(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--dsn", "host=h dbnam=x"])

    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("the key 'dbnam' that libpq does not know; did you mean 'dbname'?")


@pytest.mark.parametrize(
    "given", [f"password=a {SECRET}=b", f"postgresql://h/d?{SECRET}=1", f"sslkey=a {SECRET}=b"]
)
def test_unknown_key_that_may_be_a_secret_is_not_named(given):
    assert dsn_fault(given) == NOT_A_DSN


def test_known_keys_are_libpqs():
    unknown = {key for key in KEYS if "the key" in str(dsn_fault(f"{key}=1"))}

    assert unknown <= NEWER


@pytest.mark.parametrize("command", ["bench", "conformance"])
def test_server_that_is_not_there_is_one_line(command, capsys):
    assert main([command, "--dsn", f"host=127.0.0.1 port=1 password={SECRET}"]) == 1

    said = capsys.readouterr()
    assert said.err.startswith(f"greenpg {command}: connection to server at")
    assert said.err.count("\n") == 1
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize("words", [["--help"], ["conformance", "--list"]])
def test_reader_of_a_pipe_may_leave(words):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "greenpg", *words],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=40,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(write)

    assert not {"Traceback", "BrokenPipeError"} & set(done.stderr.replace(":", " ").split())


def test_refused_dsn_of_the_environment_is_not_quoted(monkeypatch, capsys):
    monkeypatch.setenv("GREENPG_DSN", f"host=h {SECRET}")

    assert main(["demo"]) == 1

    said = capsys.readouterr()
    assert "GREENPG_DSN: DSN is neither" in said.err
    assert SECRET not in said.out + said.err


def test_password_in_an_error_is_hidden():
    text = demo._without_password(f"cannot use {SECRET}", f"host=h password={SECRET}")

    assert text == "cannot use ***"


def test_job_does_not_show_its_dsn(record):
    assert SECRET not in repr(record.job)


def test_closed_output_is_no_traceback():
    command = '"$0" -m greenpg doctor postgresql://127.0.0.1:1/ --backend no_such:backend >&-'

    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        stderr=subprocess.PIPE, text=True, check=False, timeout=40,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "")
