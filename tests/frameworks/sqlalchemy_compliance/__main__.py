"""Runs the suite: `python -m tests.frameworks.sqlalchemy_compliance gevent URL REPORT ...`."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.green.__main__ import MONKEY

if TYPE_CHECKING:
    import pytest

HERE: Final = Path(__file__).parent
DRIVER: Final = re.compile(r"postgresql\+\w+")


class Outcomes:
    """Collects the outcome of each test under its name without the driver."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_configure(self) -> None:
        """Do not create the extension citext: the embedded server lacks it, no test uses it."""
        from sqlalchemy.dialects.postgresql import provision

        provision._extensions[:] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = DRIVER.sub("postgresql", report.nodeid.rpartition("suite.py::")[2])
        if report.when == "call" or not report.passed:
            self.found[name] = report.outcome


def main(name: str, url: str, report: str, *arguments: str) -> int:
    """Patch first, as a program does; run the suite; write the outcomes as JSON to `report`."""
    plugins: list[Any] = []
    if name in MONKEY:
        exec(MONKEY[name])
    import pytest

    if name in MONKEY:
        from tests.green.plugin import GreenThreads

        plugins.append(GreenThreads(name, patched=True))
        if url.startswith("postgresql+psycopg:"):
            import_module("greenpg.psycopg3").patch()
    outcomes = Outcomes()
    order = ["-p", "sqlalchemy.testing.plugin.pytestplugin"]
    order += ["--disable-asyncio"]  # or the suite runs in greenlets of SQLAlchemy's own
    order += [f"--dburi={url}", f"--config-file={HERE / 'setup.cfg'}", "-p", "no:cacheprovider"]
    code = pytest.main([*order, str(HERE / "suite.py"), *arguments], [*plugins, outcomes])
    Path(report).write_text(json.dumps(outcomes.found))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
