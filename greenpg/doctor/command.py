"""`greenpg doctor`: arguments, and the table of the doctor's findings."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from greenpg._command import add_dsn
from greenpg.doctor import Row, examine
from greenpg.doctor._table import Table
from greenpg.doctor.examination import LIMIT
from greenpg.doctor.rows import is_green
from greenpg.embedded import server_dsn
from greenpg_conformance.harness.describe import installed

WIDTH: Final = 120
PLACES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check whether this environment, or a program, is green",
        epilog="Exit code: 0 if no row is bad, 1 if one is, 2 for wrong arguments.",
    )
    add_dsn(
        parser, "default: GREENPG_DSN, or libpq's variables, or an embedded server if installed"
    )
    parser.add_argument(
        "--app",
        metavar="MODULE[:NAME]",
        help="import this program and check what it has set up; with --backend, "
        "monkey-patch the process first, as 'gunicorn -k gevent' does",
    )
    parser.add_argument(
        "--backend",
        type=_backend,
        metavar="|".join(installed()),
        help="default: GREENPG_BACKEND, or every installed green backend",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"time limit for each part, default {LIMIT:g}",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


def _backend(text: str) -> str:
    if text not in installed() and ":" not in text:
        known = ", ".join(installed())
        raise argparse.ArgumentTypeError(f"unknown backend {text!r}; installed backends: {known}")
    return text


def run(args: argparse.Namespace) -> int:
    """Examine what the arguments select, print the rows, return the exit code."""
    asked = args.backend or (None if args.app else os.environ.get("GREENPG_BACKEND"))
    backends = [asked] if asked else []
    with _server(args.dsn) as dsn:
        found = examine(dsn, backends=backends, app=args.app, limit=args.limit)
        rows = list(_watched(found, quiet=args.json))
    if args.json:
        report = {"green": is_green(rows), "rows": [row.as_json() for row in rows]}
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        _print(rows)
    return int(not is_green(rows))


@contextmanager
def _server(asked: str | None) -> Iterator[str | None]:
    given = asked or os.environ.get("GREENPG_DSN")
    if given is not None or any(os.environ.get(name) for name in PLACES):
        yield given or ""
        return
    with ExitStack() as stack:
        dsn = None
        with suppress(ModuleNotFoundError):
            dsn = stack.enter_context(server_dsn())
        yield dsn


def _watched(rows: Iterator[Row], *, quiet: bool) -> Iterator[Row]:
    """Yield the rows; in a terminal, show the progress meanwhile."""
    show = _show if sys.stderr.isatty() and not quiet else _show_nothing
    show("checking")
    for row in rows:
        show(f"after {row.section}")
        yield row
    show("")


def _show(text: str) -> None:
    sys.stderr.write(f"\r{text:<40}\r{text}")
    sys.stderr.flush()


def _show_nothing(text: str) -> None:
    pass


def _print(rows: list[Row]) -> None:
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else WIDTH
    colours = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.write("\n".join(Table(width, colours=colours).lines(rows)) + "\n")
