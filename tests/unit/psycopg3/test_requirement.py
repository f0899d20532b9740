"""psycopg 3 is an extra: it is imported when asked for, and its absence says what to install."""

from __future__ import annotations

import pytest

from tests import programs

MISSING = "import sys; sys.modules['psycopg'] = None"
OLD = """
import sys, types
sys.modules["psycopg"] = types.ModuleType("psycopg")
sys.modules["psycopg"].__version__ = "3.1.20"
"""


@pytest.mark.parametrize(("before", "reason"), [(MISSING, "psycopg"), (OLD, "3.1.20")])
@pytest.mark.parametrize(
    "line", ["import greenpg.psycopg3", "import greenpg_gevent as g; g.patch_psycopg3()"]
)
def test_without_psycopg_the_error_says_what_to_install(before, reason, line):
    done = programs.run(f"{before}\n{line}")

    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "pip install 'greenpg[psycopg3]' 'psycopg[binary]'" in last
    assert reason in last.partition("[binary]'")[2]


@pytest.mark.parametrize("module", ["greenpg", "greenpg.pool", "greenpg.patch", "greenpg_gevent"])
def test_greenpg_imports_no_psycopg(module):
    done = programs.run(f"import sys, {module}; print('psycopg' in sys.modules)")

    assert done.stdout == "False\n"
