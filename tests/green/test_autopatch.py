"""GREENPG_PATCH: gevent's own patching installs greenpg, in unchanged programs."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.programs import python

PATCH: Final = "from gevent import monkey; monkey.patch_all()"
REPORT: Final = """
import sys
loaded = "greenpg" in sys.modules
import psycopg2
print(loaded, psycopg2._connect.__module__)
"""
TICKING: Final = """
import gevent, psycopg2, sys
ticks = []

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

ticker = gevent.spawn(tick)
conn = psycopg2.connect(sys.argv[1])
conn.cursor().execute("select pg_sleep(0.3)")
conn.close()
ticker.kill()
print(len(ticks) > 5)
"""
EARLY: Final = "from psycopg2 import connect"  # as in a preloaded application
FORKED: Final = f"""
{EARLY}
import os, sys

pid = os.fork()
if not pid:
    {PATCH}
    {{body}}
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", "greenpg" in sys.modules)
"""
STRICT: Final = ("-W", "error", "-c")
ON, OFF = "True greenpg._connecting.connect", "False psycopg2._psycopg"


def run(*words, patch=None):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREENPG")}
    return python(*words, env=kept if patch is None else {**kept, "GREENPG_PATCH": patch})


@pytest.mark.parametrize(
    ("patch", "found"), [(None, OFF), ("", OFF), ("0", OFF), ("1", ON)], ids=str
)
def test_patch_all_installs_greenpg_when_asked_only(patch, found):
    done = run(*STRICT, PATCH + REPORT, patch=patch)

    assert (done.stdout.strip(), done.stderr) == (found, "")


@pytest.mark.parametrize(("patch", "driver"), [("1", "psycopg2"), ("psycopg3", "psycopg")])
def test_connections_of_an_unchanged_program_are_green(dsn, patch, driver):
    done = run(*STRICT, PATCH + TICKING.replace("psycopg2", driver), dsn, patch=patch)

    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("patch", "found"), [("psycopg2", "10"), ("psycopg3", "01"), ("psycopg2,psycopg3", "11")]
)
def test_the_drivers_that_it_names_are_patched(patch, found):
    report = (
        "import psycopg, psycopg2; "
        "print(*(int('greenpg' in function.__module__) for function in "
        "(psycopg2._connect, psycopg.Connection.connect)), sep='')"
    )

    done = run(*STRICT, f"{PATCH}; {report}", patch=patch)

    assert (done.stdout.strip(), done.stderr) == (found, "")


def test_ssl_is_patched_before_greenpg_comes():
    code = f"{PATCH}\nimport ssl; print(ssl.SSLContext.__module__)"

    done = run(*STRICT, code, patch="1")

    assert (done.stdout, done.stderr) == ("gevent.ssl\n", "")


@pytest.mark.parametrize("patch", ["yes", "gevent", "psycopg2,gevent"])
def test_other_value_warns_once_and_patches_nothing(patch):
    code = f"{PATCH}; monkey.patch_all()\n{REPORT}"

    done = run("-W", "always", "-c", code, patch=patch)

    assert done.stdout.strip() == OFF
    assert done.stderr.count("RuntimeWarning") == 1
    assert done.stderr.startswith(f"<string>:1: RuntimeWarning: GREENPG_PATCH='{patch}' is neither")


def test_patching_twice_is_patching_once():
    done = run("-c", f"{PATCH}; monkey.patch_all()\n{REPORT}", patch="1")

    assert done.stdout.strip() == ON


def test_worker_that_patches_after_the_fork_is_green(dsn):
    body = "conn = connect(sys.argv[1]); print(type(conn).__module__); conn.close()"

    done = run("-c", FORKED.format(body=body), dsn, patch="1")

    assert done.stdout.splitlines() == ["greenpg.connection", "parent False"], done.stderr


def test_gevents_runner_of_scripts_installs_greenpg(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(REPORT)

    done = run("-W", "error", "-m", "gevent.monkey", str(script), patch="1")

    assert (done.stdout.strip(), done.stderr) == (ON, "")


def test_eventlet_knows_nothing_of_it():
    done = run("-c", "import eventlet; eventlet.monkey_patch()" + REPORT, patch="1")

    assert done.stdout.strip() == OFF
