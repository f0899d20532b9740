"""`greenpg demo`: its jobs on each backend, and what it prints and leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from greenpg_bench.demo.job import DRIVERS, Job
from greenpg_bench.demo.process import events
from greenpg_bench.demo.record import Record

GREEN = ("eventlet", "gevent")
TASKS, CONNECTIONS = 30, 3
SESSIONS = "select count(*) from pg_stat_activity where application_name = 'greenpg demo'"


def played(backend, driver, dsn, *, kills=False):
    record = Record(Job(backend, driver, dsn, TASKS, CONNECTIONS, kills))
    with events(record.job) as reports:
        for event in reports:
            record.note(event)
    return record


def command(*words):
    return [sys.executable, "-m", "greenpg", "demo", *words]


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name != "GREENPG_DSN"}
    return {**kept, "COLUMNS": "100", **more}


def sessions_left(dsn):
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
        cur.execute(SESSIONS)
        return cur.fetchall()[0][0]


@pytest.mark.parametrize(
    ("driver", "backend"),
    [("greenpg", "threads"), *((d, b) for d in ("greenpg", "psycogreen") for b in GREEN)],
)
def test_green_driver_keeps_all_connections_busy(driver, backend, dsn):
    record = played(backend, driver, dsn)

    assert not record.error
    assert record.done == TASKS
    assert record.at_once == CONNECTIONS
    assert record.wall


@pytest.mark.parametrize("backend", GREEN)
def test_plain_psycopg2_runs_one_query_at_a_time(backend, dsn):
    record = played(backend, "psycopg2", dsn)

    assert not record.error
    assert record.done == TASKS
    assert record.at_once == 1
    assert record.wall >= record.job.in_a_row


def test_ticker_goes_on_beside_greenpg(dsn):
    green, plain = (played("eventlet", driver, dsn) for driver in ("greenpg", "psycopg2"))

    assert len(green.ticks) > len(plain.ticks)


@pytest.mark.parametrize("backend", GREEN)
@pytest.mark.parametrize(
    ("driver", "usable", "running"), [("greenpg", CONNECTIONS, 0), ("psycogreen", 0, CONNECTIONS)]
)
def test_kills_cost_psycogreen_its_connections_and_greenpg_none(
    backend, driver, usable, running, dsn
):
    record = played(backend, driver, dsn, kills=True)

    assert not record.error
    assert (record.usable, record.running) == (usable, running)


def test_unknown_backend_is_missing(dsn):
    record = played("no_such", "greenpg", dsn)

    assert "unknown backend 'no_such'" in record.missing
    assert record.start is None


def test_error_of_a_task_is_shown(dsn):
    record = played("threads", "greenpg", f"{dsn} options='-c statement_timeout=1'")

    # "user request" where the timeout fires as its statement ends: postgres.c, ProcessInterrupts
    causes = ("statement timeout", "user request")
    assert record.error.startswith(tuple(f"canceling statement due to {one}" for one in causes))


def test_worker_that_fails_reports_why(dsn):
    with events(Job("threads", "greenpg", dsn, connections=0)) as reports:
        last = list(reports)[-1]

    assert last["what"] == "failed"
    assert last["text"].startswith("ZeroDivisionError")


def test_abandoned_worker_ends(dsn):
    before = set(psutil.Process().children())

    with events(Job("threads", "psycopg2", dsn, TASKS, 1)) as reports:
        next(reports)
        workers = set(psutil.Process().children()) - before

    assert workers
    assert not any(worker.is_running() for worker in workers)


def test_demo_without_a_terminal_is_plain_text(dsn, tmp_path):
    picture = tmp_path / "demo.svg"
    words = ["--tasks", str(TASKS), "--connections", str(CONNECTIONS), "--svg", str(picture)]

    done = subprocess.run(
        command(*words),
        env=environment(GREENPG_DSN=dsn),
        capture_output=True,
        text=True,
        check=False,
    )

    rows = [line.split() for line in done.stdout.splitlines()]
    runs = [tuple(row[:3:2]) for row in rows if row[1:2] == ["on"] and row[-1].count("/") == 1]
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    played = [(d, b) for b in (*GREEN, "threads") for d in DRIVERS if Job(b, d, "").exists]
    assert runs == played
    killed = [row for row in rows if row[1:2] == ["on"] and row[4:5] == ["of"]]
    assert len(killed) == 2 * len(GREEN)
    assert "greenpg" in picture.read_text()
    assert "url(" not in picture.read_text().replace("url(#", "")


def test_unreachable_server_is_reported_once():
    done = subprocess.run(
        command("--dsn", "host=127.0.0.1 port=1 password=hunter2"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith('greenpg demo: connection to server at "127.0.0.1", port 1')
    assert "hunter2" not in done.stdout + done.stderr


class Running:
    """A demo on an embedded server, in its first run, and all that belongs to it."""

    def __init__(self) -> None:
        # one connection: long enough to be observed at work
        words = command("--backend", "gevent", "--connections", "1")
        self.process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        sockets = [file for process in self.family for file in process.net_connections("unix")]
        self.folder = Path(next(s.laddr for s in sockets if ".s.PGSQL" in str(s.laddr))).parent

    def left(self) -> list[object]:
        _, alive = psutil.wait_procs(self.family, timeout=20)
        return [*alive, *([self.folder] if self.folder.exists() else [])]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.end()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_ended_demo_leaves_nothing(running, number, code):
    running.process.send_signal(number)

    assert running.process.wait() == code
    assert running.left() == []


def test_demo_leaves_no_session(dsn):
    played("threads", "greenpg", dsn)

    assert sessions_left(dsn) == 0
