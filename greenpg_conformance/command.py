"""`greenpg conformance`: arguments, progress and the table of the conformance suite."""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import nullcontext
from fnmatch import fnmatch
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import box
from rich.markup import escape
from rich.table import Table

from greenpg._command import CommandError, check_server, console_of, dsn
from greenpg.embedded import server_dsn
from greenpg.errors import BackendError
from greenpg_conformance.harness.describe import installed
from greenpg_conformance.harness.results import BAD, Column, Result, failed, summary, verdict
from greenpg_conformance.harness.runner import Suite, columns_of
from greenpg_conformance.harness.tests import FOR_BACKENDS, MODULES, Test, discover

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Console

    from greenpg_conformance.harness.describe import Mode

JOBS: Final = (os.cpu_count() or 1) + 1  # the tests sleep for much of their time
WIDTH: Final = 140
SIGNS: Final = {
    "pass": "[green]pass[/]",
    "fail": "[bold red]FAIL[/]",
    "hang": "[bold red]HANG[/]",
    "skip": "[yellow]skip[/]",
    "lacking": "[dim]-[/]",
    "": "",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `conformance` command."""
    parser = subparsers.add_parser(
        "conformance",
        help="check that a backend follows the driver's rules",
        description="Run the parts rules and storm, which every backend must pass.",
        epilog="A backend is a registered name or module:attribute; /MODE selects one mode of it.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        type=_word,
        metavar="BACKEND|DSN",
        help="default: all registered backends, and GREENPG_DSN or an embedded server",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run the part driver too: what the driver guarantees on any backend",
    )
    parser.add_argument("--strict", action="store_true", help="count skips as failures")
    parser.add_argument("--dsn", type=dsn, help="the same as the argument DSN")
    parser.add_argument(
        "-k", "--only", default="*", metavar="PATTERN", help="of these parts, such as 'waits.*'"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=JOBS, help=f"processes at a time, default {JOBS}"
    )
    parser.add_argument(
        "--limit", type=float, default=inf, metavar="SECONDS", help="at most this for each test"
    )
    parser.add_argument("--seed", type=int, help="repeat the random choices of a run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument("--list", action="store_true", help="list the tests and modes, run none")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the tests that the arguments select, print the results, return the exit code."""
    console = console_of(WIDTH)
    _sort(args)
    tests = [test for test in discover(_parts(args)) if _is_wanted(test, args.only)]
    named = args.backends or installed()
    columns = [pair for which in named for pair in _columns(console, which, args)]
    if not tests:
        more = "" if args.all else ", --all adds those of the driver"
        raise CommandError(f"no test matches {args.only!r}; --list shows them{more}")
    if args.list:
        for name in (*(str(column) for column, _ in columns), *(test.id for test in tests)):
            console.print(name, markup=False, highlight=False)
        return 0
    return _run(console, args, tests, columns)


def _word(text: str) -> str:
    return dsn(text) if _is_for_libpq(text) else text


def _is_for_libpq(word: str) -> bool:
    """Return True if a word is a connection string: no backend's name contains these."""
    return "=" in word or "://" in word


def _sort(args: argparse.Namespace) -> None:
    """Set `backends` and `dsn` from the words, which may stand in any order."""
    args.backends = [word for word in args.words if not _is_for_libpq(word)]
    given = [*filter(_is_for_libpq, args.words), *([args.dsn] if args.dsn else [])]
    if len(given) > 1:
        raise CommandError("give one connection string")
    args.dsn = given[0] if given else None


def _parts(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(MODULES) if args.all else FOR_BACKENDS


def _is_wanted(test: Test, pattern: str) -> bool:
    return pattern in (test.id, test.row) or fnmatch(test.id, pattern)


def _columns(console: Console, which: str, args: argparse.Namespace) -> list[tuple[Column, Mode]]:
    """Return a backend's columns that can run here; name those left out for want of a library."""
    try:
        columns = columns_of(which)
    except (BackendError, LookupError) as err:
        if args.backends or args.strict:
            raise CommandError(str(err)) from err
        console.print(f"left out: {err}", style="yellow", markup=False, highlight=False)
        return []
    lacking = {column: mode.lacking for column, mode in columns if mode.lacking}
    if lacking:
        names = dict.fromkeys(name for found in lacking.values() for name in found)
        modes = ", ".join(map(str, lacking))
        fact = f"{modes}: not installed: {', '.join(names)}; pip install {' '.join(names)}"
        if args.strict or len(lacking) == len(columns):
            raise CommandError(fact)
        console.print(f"left out: {fact}", style="yellow", markup=False, highlight=False)
    return [(column, mode) for column, mode in columns if column not in lacking]


def _run(
    console: Console,
    args: argparse.Namespace,
    tests: Sequence[Test],
    columns: Sequence[tuple[Column, Mode]],
) -> int:
    seed = random.randrange(2**32) if args.seed is None else args.seed
    began = time.monotonic()
    parts = ", ".join(_parts(args))
    console.print(f"parts: {parts}; tests: {len(tests)}; seed: {seed}")
    with nullcontext(args.dsn) if args.dsn else server_dsn() as dsn:
        check_server(dsn)
        suite = Suite(tests, dsn, seed, lambda result: _announce(console, result), args.limit)
        results = suite.run(columns, max(1, args.jobs))
    if args.json:
        report = {"seed": seed, "results": [result.as_json() for result in results]}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    console.print(_table(console, results, [column for column, _ in columns]))
    _print_skips(console, results)
    for result in results:
        if result.outcome in BAD:
            _print_headline(console, result)
    seconds = time.monotonic() - began
    console.print(f"{parts}: {summary(results)} in {seconds:.0f} s, seed {seed}")
    return int(failed(results, args.strict))


def _announce(console: Console, result: Result) -> None:
    """Print a failed result at once."""
    if result.outcome in BAD:
        console.print()
        _print_headline(console, result)
        console.print(result.detail, markup=False, highlight=False)


def _print_headline(console: Console, result: Result) -> None:
    line = f"{SIGNS[result.outcome]} {escape(result.headline)}"
    console.print(line, highlight=False, soft_wrap=True)  # one line: logs are cut by lines


def _table(console: Console, results: Sequence[Result], columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("test")
    for number, heading in enumerate(_headings(console, columns), 1):
        table.add_column(heading or str(number), justify="center", no_wrap=True)
    found: dict[tuple[str, Column], list[str]] = {}
    for result in results:
        found.setdefault((result.row, result.column), []).append(result.outcome)
    for row in dict.fromkeys(result.row for result in results):
        cells = [SIGNS[verdict(found.get((row, column), ()))] for column in columns]
        table.add_row(row.replace("_", " "), *cells)
    return table


def _headings(console: Console, columns: Sequence[Column]) -> list[str]:
    """Return the columns' names, one word a line; if too narrow, print them with numbers."""
    if 44 + 10 * len(columns) <= console.width:
        return ["\n".join((column.backend, *column.mode.split("-"))) for column in columns]
    for number, column in enumerate(columns, 1):
        console.print(f"{number}  {column}")
    return [""] * len(columns)


def _print_skips(console: Console, results: Sequence[Result]) -> None:
    reasons: dict[str, dict[str, None]] = {}
    for result in results:
        if result.outcome == "skip":
            reasons.setdefault(result.detail, {})[result.row] = None
    for reason, rows in reasons.items():
        console.print(f"[yellow]skipped[/] {', '.join(rows)}: {escape(reason)}", soft_wrap=True)
