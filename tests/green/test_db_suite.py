"""The whole of tests/db once more under every green backend, one child process each.

`make test` runs them on gevent, `make modes` in all other modes, on libuv and asyncio too.
"""

from typing import Final

import pytest

from tests.green import suite
from tests.green.__main__ import MODES, MONKEY, OTHER_LOOPS

SECONDS: Final = 1800.0  # against a hang outside the tests: each has a limit of its own
DAILY: Final = {("gevent", "patched")}
COLUMNS: Final = [
    pytest.param(name, mode, marks=[] if (name, mode) in DAILY else pytest.mark.modes)
    for name in MONKEY
    for mode in MODES
]


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("name", "mode"), COLUMNS)
def test_db_tests_pass_in_green_threads(dsn: str, name: str, mode: str) -> None:
    suite.run(name, mode, "tests/db", dsn=dsn, seconds=SECONDS)


@pytest.mark.modes
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("name", "mode"), OTHER_LOOPS)
def test_db_tests_pass_on_the_other_loops(dsn: str, name: str, mode: str) -> None:
    suite.run(name, mode, "tests/db", dsn=dsn, seconds=SECONDS)
