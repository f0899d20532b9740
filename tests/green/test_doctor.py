"""The doctor on real servers, backends and programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from psycopg2.extensions import make_dsn

from greenpg.doctor import examine
from greenpg_conformance.toolkit.proxy import Proxy
from tests.db.bouncer import bouncing
from tests.db.conftest import password_of

GREEN = ("eventlet", "gevent")
MONKEY = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
PATCH = "from greenpg_{0} import patch_psycopg; patch_psycopg()"
BLOCKING = """
from greenpg.threads import Waiter
from greenpg_gevent._backend import Gevent

class Blocking(Gevent):
    def waiter(self):
        return Waiter()

backend = Blocking()
"""
SECRET, QUOTED = "hunt@er2", "hunt%40er2"

pytestmark = pytest.mark.timeout(120)


def doctor(*words, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GREENPG")}
    return subprocess.run(
        [sys.executable, "-m", "greenpg", "doctor", *words],
        env={**kept, "COLUMNS": "120", **more},
        capture_output=True,
        text=True,
        check=False,
    )


def report(*words, **more):
    """The exit code, and the rows by section and name."""
    done = doctor(*words, "--json", **more)
    rows = json.loads(done.stdout)["rows"]
    return done.returncode, {(row["section"], row["name"]): row for row in rows}


def bad(rows):
    return {name for (_, name), row in rows.items() if row["state"] == "bad"}


@pytest.fixture
def program(tmp_path):
    """Write a program of these lines, and look at it."""

    def look(dsn, *lines, backend=None, limit="40"):
        (tmp_path / "our_program.py").write_text("\n".join(lines))
        words = [dsn, "--app", "our_program:app", "--limit", limit]
        words += ["--backend", backend] if backend else []
        paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        return report(*words, PYTHONPATH=paths, GREENPG_DSN=dsn)

    return look


def test_sound_environment_is_green(dsn):
    code, rows = report(dsn)

    assert code == 0, bad(rows)
    for name in GREEN:
        assert rows[name, "connecting"]["state"] == "good"
        assert rows[name, "slow queries"]["state"] == "good"
    assert rows["server", "PostgreSQL"]["state"] == "good"
    assert rows["server", "pooler in between"]["fact"] == "none"
    assert "gevent" in rows["environment", "green libraries"]["fact"]


def test_table_fits_one_screen(dsn):
    done = doctor(dsn, "--backend", "gevent")

    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert max(map(len, lines)) <= 120
    assert len(lines) <= 40
    assert lines[-1] == "green"


def test_backend_that_blocks_is_bad(dsn, tmp_path):
    (tmp_path / "our_backend.py").write_text(BLOCKING)

    code, rows = report(dsn, "--backend", "our_backend:backend", PYTHONPATH=str(tmp_path))

    assert code == 1
    assert bad(rows) == {"slow queries"}
    assert "greenpg conformance" in rows["our_backend:backend", "slow queries"]["remedy"]


def test_backend_of_the_environment_is_looked_at(dsn):
    code, rows = report(dsn, GREENPG_BACKEND="threads")

    assert code == 0
    assert {section for section, _ in rows} == {"environment", "server", "threads"}


def test_unknown_backend_of_the_environment_is_bad(dsn):
    code, rows = report(dsn, GREENPG_BACKEND="no_such")

    assert code == 1
    assert "unknown backend 'no_such'" in rows["no_such", "backend"]["fact"]


@pytest.mark.parametrize("library", GREEN)
def test_patched_program_is_green(program, dsn, library):
    code, rows = program(dsn, MONKEY[library], PATCH.format(library))

    assert code == 0, bad(rows)
    assert rows["program", "backend"]["fact"] == library
    assert rows["program", "slow queries"]["state"] == "good"


def test_program_of_a_patched_worker_is_green(program, dsn):
    code, rows = program(dsn, PATCH.format("gevent"), backend="gevent")

    assert code == 0, bad(rows)
    assert rows["program", "monkey-patching"]["state"] == "good"


def test_explicit_program_is_green(program, dsn):
    code, rows = program(dsn, "import greenpg; greenpg.use('gevent')")

    assert code == 0, bad(rows)
    assert rows["program", "psycopg2.connect"]["state"] == "note"
    assert rows["program", "slow queries"]["state"] == "good"


def test_forgotten_patch_is_reported_with_the_line_to_add(program, dsn):
    code, rows = program(dsn, MONKEY["gevent"])

    assert code == 1
    assert bad(rows) == {"backend", "slow queries"}
    assert rows["program", "backend"]["remedy"] == PATCH.format("gevent")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["app = None"], {"backend"}),
        ([MONKEY["gevent"], "import greenpg; greenpg.use('threads')"], {"backend", "slow queries"}),
        ([MONKEY["gevent"], PATCH.format("eventlet")], {"backend"}),
        (
            [
                MONKEY["gevent"],
                PATCH.format("gevent"),
                "from psycogreen.gevent import patch_psycopg; patch_psycopg()",
            ],
            {"wait callback"},
        ),
        ([MONKEY["gevent"], PATCH.format("gevent"), "raise SystemExit(3)"], {"import"}),
    ],
    ids=["nothing", "threads", "another_library", "psycogreen_after_it", "exits"],
)
def test_what_is_wrong_with_a_program_is_named(program, dsn, lines, named):
    code, rows = program(dsn, *lines)

    assert code == 1
    assert bad(rows) == named


PATCH3 = "from greenpg_{0} import patch_psycopg3; patch_psycopg3()"
PSYCOPG3 = "import psycopg"


@pytest.mark.parametrize("library", GREEN)
def test_patched_psycopg3_is_green(program, dsn, library):
    code, rows = program(dsn, MONKEY[library], PATCH3.format(library), PSYCOPG3)

    assert code == 0, bad(rows)
    assert rows["program", "psycopg.connect"]["state"] == "good"
    assert rows["program", "psycopg2.connect"]["state"] == "fact"


@pytest.mark.parametrize(
    ("library", "lines", "state", "why"),
    [
        ("eventlet", [MONKEY["eventlet"], PSYCOPG3], "bad", "not wait through eventlet"),
        ("gevent", [PSYCOPG3, MONKEY["gevent"]], "bad", "not wait through gevent"),
        ("gevent", [MONKEY["gevent"], PSYCOPG3], "note", "an interrupt leaves it unusable"),
        (
            "eventlet",
            [MONKEY["eventlet"], "import greenpg.psycopg3"],
            "note",
            "not wait through eventlet",
        ),
    ],
    ids=["eventlet", "imported_before_the_patch", "gevent", "explicit"],
)
def test_plain_psycopg3_is_reported_with_the_line_to_add(program, dsn, library, lines, state, why):
    choice = f"import greenpg; greenpg.use({library!r})"

    _, rows = program(dsn, *lines, choice)

    found = rows["program", "psycopg.connect"]
    assert (found["state"], found["remedy"]) == (state, PATCH3.format(library))
    assert why in found["fact"]


def test_forgotten_patch_of_a_program_with_psycopg3_is_patch_psycopg3(program, dsn):
    _, rows = program(dsn, MONKEY["eventlet"], PSYCOPG3)

    assert rows["program", "backend"]["remedy"] == PATCH3.format("eventlet")


def test_psycopg3_is_named_with_its_libpq(dsn):
    _, rows = report(dsn, "--backend", "gevent")

    assert rows["environment", "psycopg 3"]["state"] == "good"
    assert "libpq" in rows["environment", "psycopg 3"]["fact"]


def test_psycopg3_that_is_too_old_is_noted(tmp_path):
    (tmp_path / "psycopg.py").write_text("__version__ = '3.1.20'")

    _, rows = report("host=127.0.0.1 port=1", "--backend", "threads", PYTHONPATH=str(tmp_path))

    assert rows["environment", "psycopg 3"]["state"] == "note"
    assert "3.2 or newer" in rows["environment", "psycopg 3"]["fact"]


CONNECT = "import os, {0}; {1} = {0}.connect(os.environ['GREENPG_DSN'])"


@pytest.mark.parametrize("library", GREEN)
def test_connections_older_than_the_patch_are_bad_with_their_places(program, dsn, library):
    first, second = CONNECT.format("psycopg2", "first"), CONNECT.format("psycopg2", "second")
    later = CONNECT.format("psycopg2", "later")

    code, rows = program(
        dsn, MONKEY[library], first, second, "second.close()", PATCH.format(library), later
    )

    assert code == 1
    assert bad(rows) == {"older connections"}
    fact = rows["program", "older connections"]["fact"]
    assert fact.startswith("1 psycopg2 connection is older than the patch, made at ")
    assert "our_program.py:2:" in fact


def test_psycopg3_connections_older_than_the_patch_are_bad(program, dsn):
    first = CONNECT.format("psycopg", "first")

    _, rows = program(dsn, MONKEY["gevent"], first, PATCH3.format("gevent"))

    fact = rows["program", "older connections"]["fact"]
    assert fact.startswith("1 psycopg 3 connection is older than the patch")


@pytest.mark.parametrize(
    ("patches", "state", "remedy"),
    [
        ([PATCH], "note", PATCH3),
        ([PATCH3], "note", PATCH),
        ([PATCH, PATCH3], "good", None),
    ],
    ids=["psycopg2", "psycopg3", "both"],
)
def test_program_with_two_drivers_is_told_to_patch_both(program, dsn, patches, state, remedy):
    lines = [MONKEY["gevent"], *(patch.format("gevent") for patch in patches)]

    _, rows = program(dsn, *lines, "import psycopg2", "from psycopg import connect")

    row = rows["program", "two drivers"]
    assert row["state"] == state
    assert row["fact"].startswith("psycopg2 in our_program and psycopg 3 in our_program")
    assert row["remedy"] == (remedy.format("gevent") if remedy else "")


@pytest.mark.parametrize(
    ("version", "patch", "state"),
    [("2.1.9", PATCH, "note"), ("2.1.9", PATCH3, "fact"), ("2.0.58", PATCH, None)],
)
def test_sqlalchemy_whose_default_is_psycopg3_is_noted(
    program, tmp_path, dsn, version, patch, state
):
    (tmp_path / "sqlalchemy.py").write_text(f"__version__ = {version!r}")

    _, rows = program(dsn, MONKEY["gevent"], patch.format("gevent"), "import sqlalchemy")

    assert rows.get(("program", "SQLAlchemy"), {"state": None})["state"] == state


def test_traced_connections_of_a_program_are_green_under_the_doctor_too(program, dsn):
    trace = "psycopg2.connect = functools.wraps(plain)(lambda *args, **more: plain(*args, **more))"
    lines = ["import functools, os, psycopg2; plain = psycopg2.connect", trace, "import greenpg"]
    made = "conn = greenpg.connect(os.environ['GREENPG_DSN'], backend='gevent')"

    _, rows = program(dsn, MONKEY["gevent"], *lines, made, "assert conn.deadline(1)")

    assert rows["program", "import"]["state"] == "good"


def test_missing_backend_of_a_program_is_a_bad_row(program, dsn):
    code, rows = program(dsn, "app = None", backend="no_such_library:backend")

    assert code == 1
    assert bad(rows) == {"backend"}
    assert "no_such_library" in rows["program", "backend"]["fact"]


def test_partly_patched_program_is_noted(program, dsn):
    lines = ("from gevent import monkey; monkey.patch_all(thread=False)", PATCH.format("gevent"))

    code, rows = program(dsn, *lines)

    assert code == 0
    assert rows["program", "monkey-patching"]["state"] == "note"
    assert rows["program", "monkey-patching"]["fact"].endswith("but not thread")


def test_program_that_does_not_end_its_import_is_reported(program, dsn):
    code, rows = program(dsn, "import time", "", "time.sleep(600)", limit="4")

    assert code == 1
    assert bad(rows) == {"end"}
    assert rows["program", "end"]["fact"].endswith("our_program.py, line 3")


def test_unreachable_server_leaves_the_local_rows_and_no_password():
    where = f"postgresql://me:{QUOTED}@127.0.0.1:1/{QUOTED}"

    code, rows = report(where)
    shown = doctor(where, "--backend", "gevent")

    assert code == shown.returncode == 1
    assert bad(rows) == {"PostgreSQL"}
    assert "port 1 failed" in rows["server", "PostgreSQL"]["fact"]
    assert rows["environment", "libpq"]["state"] == "good"
    for text in (str(rows), shown.stdout, shown.stderr):
        assert SECRET not in text
        assert QUOTED not in text


def test_password_that_the_server_repeats_is_hidden(dsn):
    password = password_of(dsn)
    where = make_dsn(dsn, dbname=password, password=password)

    code, rows = report(where, "--backend", "gevent")

    assert code == 1
    assert 'database "***" does not exist' in rows["server", "PostgreSQL"]["fact"]


def test_silent_server_is_given_up(dsn):
    with Proxy(dsn) as proxy:
        proxy.stall()
        code, rows = report(make_dsn(proxy.dsn, connect_timeout=2), "--backend", "gevent")

    assert code == 1
    assert "timeout expired" in rows["server", "PostgreSQL"]["fact"]


def test_unknown_host_name_is_reported_per_backend():
    code, rows = report("host=no-such-host.invalid", "--backend", "gevent")

    assert code == 1
    assert rows["gevent", "name resolution"]["state"] == "bad"
    assert "no-such-host.invalid" in rows["gevent", "name resolution"]["fact"]


@pytest.mark.parametrize("name", GREEN)
def test_name_is_resolved_by_the_backend(dsn, name):
    here = make_dsn(dsn, host="localhost")

    _, rows = report(here, "--backend", name)

    assert rows[name, "name resolution"]["state"] == "good"
    assert rows[name, "slow queries"]["state"] == "good"


def test_encryption_is_reported(dsn):
    with Proxy(dsn, tls=True) as proxy:
        _, rows = report(proxy.dsn, "--backend", "threads")

    assert rows["server", "SSL"]["state"] == "good"
    assert rows["server", "SSL"]["fact"].startswith("TLSv1.")


@pytest.mark.parametrize(("mode", "state"), [("transaction", "note"), ("session", "fact")])
def test_pooler_is_reported_with_its_mode(dsn, tmp_path, mode, state):
    with bouncing(dsn, tmp_path, mode) as bouncer:
        code, rows = report(bouncer.dsn, "--backend", "gevent")

    assert code == 0, bad(rows)
    assert rows["server", "pooler in between"]["state"] == state
    assert mode in rows["server", "pooler in between"]["fact"]


def test_rows_are_there_for_programs_too(dsn, sessions):
    found = {row.name: row for row in examine(dsn, backends=["threads"])}

    assert found["connections"].state == "good"
    assert found["timeouts"].state == "note"
    assert found["two-phase commit"].fact.startswith("max_prepared_transactions ")
