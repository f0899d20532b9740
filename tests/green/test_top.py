"""`greenpg top` beside programs on each backend."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests import programs
from tests.green.monitored import STUCK

TOP = ("-m", "greenpg", "top")
SECONDS = 20.0


def test_it_prints_once_where_the_output_is_no_terminal(program):
    address = program("serve")
    program("stuck")

    done = programs.python(*TOP, address)

    assert done.returncode == 0, done.stderr
    assert STUCK in done.stdout
    assert "1 in use, 1 idle" in done.stdout


@pytest.mark.parametrize("program", ["gevent"], indirect=True)
def test_it_reads_a_mounted_monitor_and_gives_its_token(program):
    mounted, address = program("mount"), program("serve", token="secret")
    environ = {**os.environ, "GREENPG_MONITOR_TOKEN": "secret"}

    found = [
        programs.python(*TOP, mounted),
        programs.python(*TOP, f"{address}?token=secret"),
        programs.python(*TOP, address, env=environ),
        programs.python(*TOP, address),
        programs.python(*TOP, f"{address}?token=wrong"),
    ]

    assert [done.returncode for done in found] == [0, 0, 0, 1, 1]
    assert "needs a token" in found[3].stderr
    assert "refuses the token" in found[4].stderr


@contextmanager
def terminal(*words):
    """Run Python in a terminal of its own; yields the process and what reads until a text comes."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    seen = bytearray()

    def until(text):
        while text.encode() not in seen:
            assert select.select([ours], [], [], SECONDS)[0], seen.decode()
            seen.extend(os.read(ours, 65536))
        seen.clear()

    try:
        yield process, until
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("program", ["gevent"], indirect=True)
def test_it_follows_in_a_terminal_until_ctrl_c(program):
    address = program("serve")
    port = int(address.rstrip("/").rpartition(":")[2])
    with terminal(*TOP, address) as (process, until):
        until("0 in use, 2 idle")
        program("stuck")
        until(STUCK)
        program("end")
        until("trying again")
        program("give_back")
        program("serve", port=port)
        until("0 in use, 2 idle")

        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0


def test_it_prints_multiplexers_and_listeners(program):
    address = program("serve")
    program("multiplex", text="select pg_sleep(600)")
    program("listen")
    program("notify")

    done = programs.python(*TOP, address)

    assert done.returncode == 0, done.stderr
    assert "many multiplexer: 2 statements, 0 failed" in done.stdout
    assert "news listener: connected, 1 subscriptions to 1 channels" in done.stdout
    assert "pg_sleep" not in done.stdout
    program("cancel")
