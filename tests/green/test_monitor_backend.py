"""A monitor waits as its program does, even where that has chosen no default backend."""

from __future__ import annotations

import os

import pytest

from tests import programs

WAITS = """
import sys
from greenpg.monitor import Monitor, serve
from greenpg.pool import ConnectionPool
{program}
monitor = Monitor()
monitor.start()
print(monitor._feed._find_backend().name)
with serve(0) as server:
    print(server._backend.name)
"""
PATCHED = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
POOL = """
from greenpg_{library} import ConnectionPool
pool = ConnectionPool("host=127.0.0.1 port=1", min_size=1, open=True)
"""


def backends(program: str, **environ: str) -> list[str]:
    code = WAITS.format(program=program)
    done = programs.run(code, env={**os.environ, **environ})
    assert done.returncode == 0, done.stderr
    assert "monkey-patched" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("library", PATCHED)
def test_in_a_patched_process_it_is_the_librarys(library):
    assert backends(PATCHED[library]) == [library, library]


@pytest.mark.parametrize("library", PATCHED)
def test_beside_a_green_pool_it_is_that_pools(library):
    assert backends(POOL.format(library=library)) == [library, library]


@pytest.mark.parametrize("library", PATCHED)
def test_a_chosen_one_takes_precedence(library):
    chosen = backends(PATCHED[library], GREENPG_BACKEND="threads")

    assert chosen == ["threads", "threads"]


def test_without_anything_green_it_is_os_threads():
    assert backends("") == ["threads", "threads"]


def test_a_pool_that_is_not_used_chooses_nothing_yet():
    assert backends("pool = ConnectionPool(''); import greenpg; greenpg.use('gevent')") == [
        "gevent",
        "gevent",
    ]
