"""python -m tests.upstream [--backend NAME ...] [--source DIR] [--limit SECONDS] [PATTERN ...]"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from .expected import Expected
from .runner import Result, Run, SuiteBroken
from .server import ServerError, lent_server
from .source import SourceError, installed_version, suite_directory

CACHE = Path(__file__).parents[2] / "build" / "upstream"
BACKENDS = ("gevent", "eventlet", "blocking")


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description="Run psycopg2's own test suite with greenpg patched in, and compare the "
        "results with the checked-in list of the tests that do not simply pass.",
    )
    parser.add_argument(
        "--backend", action="append", choices=BACKENDS, help="repeatable; default: both green ones"
    )
    parser.add_argument("--source", type=Path, metavar="DIR", help="psycopg2's unpacked source")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="for each test")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="part of a test's name")
    return parser.parse_args()


def main() -> int:
    options = parsed_options()
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        suite = (options.source or suite_directory(CACHE)).resolve()
        runs = [run(name, suite, options) for name in options.backend or BACKENDS[:2]]
    except (SourceError, ServerError, SuiteBroken) as err:
        print(f"upstream: {err}", file=sys.stderr)
        return 2
    print(*(line for line, _ in runs), sep="\n")
    return max(status for _, status in runs)


def run(backend: str, suite: Path, options: argparse.Namespace) -> tuple[str, int]:
    """Run one backend and print the differences; return its last line, and 1 if there are any."""
    print(f"{backend}: psycopg2 {installed_version()}'s own tests ...", flush=True)
    with lent_server() as dsn:
        plan = Run(backend, suite, dsn, CACHE / f"{backend}.log", options.patterns, options.limit)
        results = {result.test: result for result in plan.results()}
    wrong = differences(backend, results, whole=not options.patterns)
    for test, difference in wrong.items():
        note = results[test].note.splitlines() if test in results else ()
        print(f"{backend}: {test}: {difference}", *note, sep="\n    ", flush=True)
    return closing_line(backend, results), int(bool(wrong) or not results)


def differences(backend: str, results: dict[str, Result], *, whole: bool) -> dict[str, str]:
    expected = Expected()
    got = {test: result.outcome for test, result in results.items()}
    wrong = expected.differences(backend, got)
    return wrong | expected.absences(backend, got, installed_version()) if whole else wrong


def closing_line(backend: str, results: dict[str, Result]) -> str:
    counts = Counter(result.outcome for result in results.values())
    return f"{backend}: " + "{passed} passed, {failed} failed, {skipped} skipped".format_map(counts)


if __name__ == "__main__":
    sys.exit(main())
