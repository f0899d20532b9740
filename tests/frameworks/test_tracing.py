"""OpenTelemetry's instrumentation of psycopg2, under each backend in a process of its own."""

from typing import Final

import pytest

from tests.green import suite
from tests.green.__main__ import MODES, MONKEY

SECONDS: Final = 200.0
NO_KILL: Final = ("-k", "not kill")
RUNS: Final = [
    *((name, mode, ()) for name in MONKEY for mode in MODES),
    ("threads", "explicit", NO_KILL),
]


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("name", "mode", "choice"), RUNS)
def test_traced_queries_stay_green(dsn: str, name: str, mode: str, choice: tuple[str, ...]) -> None:
    suite.run(name, mode, "tests/frameworks/traced.py", *choice, dsn=dsn, seconds=SECONDS)
