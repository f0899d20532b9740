"""A monkey-patched process without a backend is warned once of psycopg 3's connections too."""

from __future__ import annotations

import pytest

from tests import programs
from tests.green.__main__ import MONKEY

PSYCOPG3 = """
from greenpg import psycopg3
psycopg3.connect({dsn!r}).close()
psycopg3.connect({dsn!r}).close()
"""
POOL = """
import greenpg
pool = greenpg.ConnectionPool({dsn!r}, driver="psycopg", min_size=1)
pool.putconn(pool.getconn())
pool.close()
"""
BEGIN = "{monkey}\nimport warnings\nwarnings.simplefilter('always')\n"

pytestmark = pytest.mark.parametrize("library", MONKEY)


def ran(program, dsn, library, choice=""):
    begin = BEGIN.format(monkey=MONKEY[library])
    done = programs.run(begin + choice + program.format(dsn=dsn))
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("program", [PSYCOPG3, POOL])
def test_process_without_a_backend_is_warned_once(dsn, library, program):
    assert ran(program, dsn, library).count("NotGreenWarning") == 1


def test_warning_has_the_line_to_add(dsn, library):
    said = ran(PSYCOPG3, dsn, library)

    assert f"from greenpg_{library} import patch_psycopg3; patch_psycopg3()" in said
    assert "<string>:" in said.partition("NotGreenWarning")[0].splitlines()[-1]


def test_process_that_was_patched_is_not_warned(dsn, library):
    choice = f"from greenpg_{library} import patch_psycopg3; patch_psycopg3()\n"

    assert "NotGreenWarning" not in ran(PSYCOPG3, dsn, library, choice)


@pytest.mark.parametrize(
    "choice",
    [
        "import greenpg_{other}; greenpg_{other}.patch_psycopg()",
        "import greenpg_{other}; greenpg_{other}.patch_psycopg3()",
        "import greenpg; greenpg.use({other!r})",
    ],
)
def test_process_that_another_library_has_patched_is_warned(library, choice):
    (other,) = MONKEY.keys() - {library}
    begin = BEGIN.format(monkey=MONKEY[library])

    done = programs.run(f"{begin}{choice.format(other=other)}\n")

    assert done.returncode == 0, done.stderr
    assert f"monkey-patched by {library}, but greenpg's backend is {other}" in done.stderr
    assert "<string>:4: NotGreenWarning" in done.stderr


@pytest.mark.parametrize("choice", ["greenpg.use({library!r})", "greenpg.use('threads')"])
def test_process_with_a_backend_that_fits_is_not_warned(library, choice):
    begin = BEGIN.format(monkey=MONKEY[library])

    done = programs.run(f"{begin}import greenpg\n{choice.format(library=library)}\n")

    assert "NotGreenWarning" not in done.stderr
