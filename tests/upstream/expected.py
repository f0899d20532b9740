"""The checked-in list of the suite's tests that do not simply pass, and the comparison."""

from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

LIST = Path(__file__).with_name("expected.ini")
OWNERS = ("blocking", "green", "gevent", "eventlet")
OUTCOMES = ("passed", "failed", "skipped")


class _List(ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # a test's name keeps its case


class Expected:
    """The expected outcomes: those of blocking psycopg2, and each backend's differences."""

    def __init__(self, path: Path = LIST) -> None:
        self._list = _List(delimiters=("=",), interpolation=None)
        with path.open() as file:
            self._list.read_file(file)
        sections = {f"{owner} {outcome}" for owner in OWNERS for outcome in OUTCOMES}
        if unknown := set(self._list.sections()) - sections - {"recorded"}:
            raise ValueError(f"{path.name} has unknown sections: {', '.join(sorted(unknown))}")

    def outcomes(self, backend: str) -> dict[str, str]:
        """Return the outcome of each test listed for the backend; the others pass."""
        whose = ("blocking",) if backend == "blocking" else ("blocking", "green", backend)
        outcomes: dict[str, str] = {}
        for owner in whose:
            for outcome in OUTCOMES:
                section = f"{owner} {outcome}"
                tests = self._list[section] if self._list.has_section(section) else ()
                outcomes |= dict.fromkeys(tests, outcome)
        return outcomes

    def differences(self, backend: str, got: Mapping[str, str]) -> dict[str, str]:
        """Return the tests whose outcome differs from the list, with the difference."""
        listed = self.outcomes(backend)
        return {
            test: f"{outcome}, but {LIST.name} says {listed.get(test, 'passed')}"
            for test, outcome in got.items()
            if outcome != listed.get(test, "passed")
        }

    def absences(self, backend: str, got: Mapping[str, str], version: str) -> dict[str, str]:
        """Return what a whole run lacks: listed tests, or some of the recorded number."""
        absent = {
            test: f"listed in {LIST.name}, but not in the suite"
            for test in self.outcomes(backend)
            if test not in got
        }
        recorded = self._list["recorded"]
        if version == recorded["psycopg2"] and len(got) != int(recorded["tests"]):
            absent["the suite"] = f"{len(got)} tests, but {LIST.name} says {recorded['tests']}"
        return absent
