"""Runs tests of psycopg2's suite in this process; a line of JSON tells of each start and end.

Started as a script, not as a module: the suite's own package is called `tests` too.
"""

import faulthandler
import json
import os
import sys

plan = json.load(sys.stdin)
backend = plan["backend"]
if backend == "gevent":
    from gevent import monkey

    monkey.patch_all()
elif backend == "eventlet":
    import eventlet

    eventlet.monkey_patch(psycopg=False)

# A green library wants to patch before anything else is imported.
import traceback  # noqa: E402
import unittest  # noqa: E402
from importlib import import_module  # noqa: E402
from time import perf_counter  # noqa: E402
from typing import Any  # noqa: E402

if backend != "blocking":
    import_module(f"greenpg_{backend}").patch_psycopg()
sys.path[0] = plan["suite"]
suite = import_module("tests")

report = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what a test prints is for the log


def tell(**event: object) -> None:
    report.write(json.dumps(event) + "\n")


class Recorder(unittest.TestResult):
    """Tells how each test went; ends the process when one outlives the limit.

    The watchdog is a thread of C code: it also ends a process frozen with the GIL held.
    """

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.outcome, self.note, self.began = "passed", "", perf_counter()
        tell(test=test.key, event="start")
        faulthandler.dump_traceback_later(plan["limit"], exit=True)

    def stopTest(self, test: Any) -> None:
        seconds = round(perf_counter() - self.began, 3)
        tell(test=test.key, event="end", outcome=self.outcome, note=self.note, seconds=seconds)
        super().stopTest(test)

    def set(self, outcome: str, note: str) -> None:
        if self.outcome != "failed":
            self.outcome, self.note = outcome, note

    def addFailure(self, test: Any, err: Any) -> None:
        self.set("failed", "".join(traceback.format_exception(*err)))

    def addError(self, test: Any, err: Any) -> None:
        if not hasattr(test, "key"):  # a class's or module's set-up stands in for its tests
            raise err[1]
        self.addFailure(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        self.set("skipped", reason)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err:
            self.addFailure(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.set("failed", "unexpected success")


def flatten(tests: Any) -> Any:
    for test in tests:
        yield from flatten(test) if isinstance(test, unittest.TestSuite) else [test]


def wanted(tests: Any) -> unittest.TestSuite:
    """The tests of the plan; each gets a key, since the suite has some of them twice."""
    chosen, seen = unittest.TestSuite(), dict.fromkeys(plan["done"], True)
    counts: dict[str, int] = {}
    for test in flatten(tests):
        name = test.id().removeprefix("tests.")
        counts[name] = counts.get(name, 0) + 1
        test.key = name if counts[name] == 1 else f"{name}#{counts[name]}"
        if test.key not in seen and any(p in test.key for p in plan["patterns"] or [""]):
            chosen.addTest(test)
    return chosen


wanted(suite.test_suite()).run(Recorder())
faulthandler.dump_traceback_later(plan["limit"], exit=True)  # the end of the process may hang too
