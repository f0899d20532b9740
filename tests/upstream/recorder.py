"""Runs tests and writes the start and end of each as a line of JSON to standard output."""

import faulthandler
import json
import os
import sys
import traceback
import unittest
from collections import Counter
from collections.abc import Iterator
from time import perf_counter
from typing import Any


def run(tests: unittest.TestSuite, plan: dict[str, Any]) -> None:
    """Run the tests that the plan selects and that are not `done`.

    The process ends if a test exceeds the plan's limit, or if its own end takes longer than that.
    """
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the output of tests goes to the log
    done, patterns = frozenset(plan["done"]), plan["patterns"] or [""]
    chosen = unittest.TestSuite(
        test
        for test in _with_keys(tests)
        if test.key not in done and any(pattern in test.key for pattern in patterns)
    )
    chosen.run(_Recorder(report, plan["limit"]))
    faulthandler.dump_traceback_later(plan["limit"], exit=True)


def _with_keys(tests: unittest.TestSuite) -> Iterator[Any]:
    """Yield every test with a unique key; the suite contains some tests twice."""
    seen: Counter[str] = Counter()
    for test in _flat(tests):
        name = test.id().removeprefix("tests.")
        seen[name] += 1
        test.key = name if seen[name] == 1 else f"{name}#{seen[name]}"
        yield test


def _flat(tests: unittest.TestSuite) -> Iterator[Any]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


class _Recorder(unittest.TestResult):
    def __init__(self, report: Any, limit: float) -> None:
        super().__init__()
        self.report, self.limit = report, limit
        self.outcome, self.note, self.began = "passed", "", 0.0

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.outcome, self.note, self.began = "passed", "", perf_counter()
        self._tell(test=test.key)
        sys.stderr.write(f"{test.key}\n")  # shows in the log which test printed what
        # faulthandler uses a C thread, which ends the process even if the GIL is held forever.
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def stopTest(self, test: Any) -> None:
        seconds = round(perf_counter() - self.began, 3)
        self._tell(test=test.key, outcome=self.outcome, note=self.note, seconds=seconds)
        super().stopTest(test)

    def addError(self, test: Any, err: Any) -> None:
        if not hasattr(test, "key"):  # the set-up of a class or module failed
            raise err[1]
        self.addFailure(test, err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._fail("".join(traceback.format_exception(*err)))

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addFailure(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._fail("unexpected success")

    def addSkip(self, test: Any, reason: str) -> None:
        if self.outcome == "passed":
            self.outcome, self.note = "skipped", reason

    def _fail(self, note: str) -> None:
        if self.outcome != "failed":
            self.outcome, self.note = "failed", note

    def _tell(self, **event: Any) -> None:
        self.report.write(json.dumps(event) + "\n")
