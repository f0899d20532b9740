"""A program written for psycogreen needs only its import line changed."""

from __future__ import annotations

from typing import Final

import pytest

from tests.programs import run

PROGRAM: Final = """
{patch_all}
{line}
patch_psycopg()

import sys
import {library}
import psycopg2
import psycopg2.extras

def download(number):
    conn = psycopg2.connect(sys.argv[1])
    cur = conn.cursor(cursor_factory=psycopg2.extras.DictCursor)
    cur.execute("select %s as number, pg_sleep(0.2)", (number,))
    number = cur.fetchone()["number"]
    conn.close()
    return number

ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        {library}.sleep(0.01)

ticker = {library}.spawn(tick)
{download_all}
ticker.kill()
print(found, ticks > 10)
"""
LIBRARIES: Final = {
    "gevent": {
        "patch_all": "from gevent import monkey; monkey.patch_all()",
        "download_all": "import gevent.pool; found = gevent.pool.Group().map(download, range(5))",
    },
    "eventlet": {
        "patch_all": "import eventlet; eventlet.monkey_patch()",
        "download_all": "found = list(eventlet.GreenPool(10).imap(download, range(5)))",
    },
}


@pytest.mark.parametrize("package", ["psycogreen.{}", "greenpg_{}"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_program_runs_with_either_import_line(dsn, library, package):
    line = f"from {package.format(library)} import patch_psycopg"
    code = PROGRAM.format(library=library, line=line, **LIBRARIES[library])

    done = run(code, dsn)

    assert done.stdout == "[0, 1, 2, 3, 4] True\n", done.stderr
    assert done.stderr == ""


COUNTED = """
from {package} import patch_psycopg
patch_psycopg()

import sys
import gevent
import psycopg2

class Counted(gevent.Greenlet):
    ins = outs = 0

    def switch(self, *args):
        self.ins += 1
        return super().switch(*args)

    def switch_out(self):
        self.outs += 1

def ask():
    cur = psycopg2.connect(sys.argv[1]).cursor()
    for _ in range(10):
        cur.execute("select 1")

counted = Counted.spawn(ask)
counted.get()
print(counted.outs >= 10, counted.ins - counted.outs)
"""


@pytest.mark.parametrize("package", ["psycogreen.gevent", "greenpg_gevent"])
def test_greenlet_with_its_own_switch_sees_each(dsn, package):
    code = COUNTED.format(package=package)

    done = run(code, dsn)

    assert done.stdout == "True 1\n", done.stderr
