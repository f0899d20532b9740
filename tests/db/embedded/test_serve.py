"""`greenpg serve`: the lines that it prints lead to an empty database until it is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

pytestmark = pytest.mark.timeout(120)
SERVE = [sys.executable, "-m", "greenpg", "serve"]


@pytest.fixture
def serving() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(SERVE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def variables(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the lines that it prints, as a shell would."""
    assert process.stdout is not None
    assert process.stdout.readline().startswith("# PostgreSQL 16 ")
    lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(5)]
    return dict(line.split("=", 1) for line in lines)


def test_printed_lines_lead_to_an_empty_database(serving, monkeypatch):
    for name, value in variables(serving).items():
        monkeypatch.setenv(name, value)

    with closing(psycopg2.connect("")) as conn, conn.cursor() as cur:
        cur.execute(
            "select current_database(), count(*) from pg_tables where schemaname = 'public'"
        )

        assert cur.fetchone() == ("app", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_the_regular_end(serving, number):
    directory = Path(variables(serving)["PGPASSFILE"]).parent

    serving.send_signal(number)

    assert serving.wait() == 0
    assert not directory.exists()


def test_wrong_port_is_refused():
    done = subprocess.run([*SERVE, "--port", "70000"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "'70000' is not a port" in done.stderr
