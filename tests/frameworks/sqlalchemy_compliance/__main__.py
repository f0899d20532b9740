"""Runs SQLAlchemy's tests in the current directory: `... gevent URL REPORT [FILE ...]`."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.green.__main__ import MONKEY

if TYPE_CHECKING:
    import pytest

STOCK: Final = {
    "postgresql+greenpg": "postgresql+psycopg2",
    "postgresql+greenpg3": "postgresql+psycopg",
}


class Outcomes:
    """Collects the outcome of each test under its name."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_configure(self) -> None:
        """Do not create extensions: the embedded server lacks citext, no test there uses it."""
        from sqlalchemy.dialects.postgresql import provision

        provision._extensions[:] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.found[report.nodeid] = report.outcome


def main(name: str, url: str, report: str, *files: str) -> int:
    """Patch first, as a program does; run the tests; write the outcomes as JSON to `report`."""
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
    order = ["-q", "--tb=short", "--noconftest", "-p", "sqlalchemy.testing.plugin.pytestplugin"]
    order += ["--disable-asyncio"]  # or the suite runs in greenlets of SQLAlchemy's own
    order += [f"--dburi={under_stock_name(url)}", "-p", "no:cacheprovider"]
    order += ["--timeout=60", "-o", "faulthandler_timeout=90"]
    order += ["-W", r"ignore:\s*Eventlet is deprecated"]
    code = pytest.main([*order, *files], [*plugins, outcomes])
    Path(report).write_text(json.dumps(outcomes.found))
    return code


def under_stock_name(url: str) -> str:
    """Give greenpg's dialect the name of SQLAlchemy's own, by which tests know what it can do."""
    from sqlalchemy.dialects import registry

    name, colon, rest = url.partition(":")
    if name in STOCK:
        dialect = registry.load(name.replace("+", "."))
        driver = STOCK[name].partition("+")[2]
        body = {"driver": driver, "supports_statement_cache": True}
        renamed = type(dialect.__name__, (dialect,), body)
        registry.impls[f"postgresql.{driver}"] = lambda: renamed
    return STOCK.get(name, name) + colon + rest


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
