"""`greenpg doctor`: arguments, and the table of the doctor's findings."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from greenpg._command import console_of
from greenpg.doctor import Row, examine
from greenpg.doctor.examination import LIMIT
from greenpg.doctor.rows import NOT_A_DSN, is_dsn, is_green
from greenpg.embedded import server_dsn
from greenpg_conformance.harness.describe import installed

WIDTH: Final = 120
PLACES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")
SIGNS: Final = {
    "good": "[green]good[/]",
    "fact": "",
    "note": "[yellow]note[/]",
    "bad": "[bold red]BAD[/]",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check whether this environment, or a program, is green",
        epilog="Exit code: 0 if no row is bad, 1 if one is, 2 for wrong arguments.",
    )
    parser.add_argument(
        "dsn",
        nargs="?",
        type=_dsn,
        metavar="DSN",
        help="default: GREENPG_DSN, or libpq's variables, or an embedded server if installed",
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


def _dsn(text: str) -> str:
    if not is_dsn(text):  # libpq's text may quote the password
        raise argparse.ArgumentTypeError(NOT_A_DSN)
    return text


def _backend(text: str) -> str:
    if text not in installed() and ":" not in text:
        known = ", ".join(installed())
        raise argparse.ArgumentTypeError(f"unknown backend {text!r}; installed backends: {known}")
    return text


def run(args: argparse.Namespace) -> int:
    """Examine what the arguments select, print the rows, return the exit code."""
    console = console_of(WIDTH)
    asked = args.backend or (None if args.app else os.environ.get("GREENPG_BACKEND"))
    backends = [asked] if asked else []
    with _server(args.dsn) as dsn:
        found = examine(dsn, backends=backends, app=args.app, limit=args.limit)
        rows = list(_watched(found, quiet=args.json))
    if args.json:
        report = {"green": is_green(rows), "rows": [row.as_json() for row in rows]}
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        console.print(_table(rows))
        console.print(_verdict(rows))
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
    with Console(stderr=True, quiet=quiet).status("checking") as status:
        for row in rows:
            status.update(f"after {escape(row.section)}")
            yield row


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
    for heading in ("", "what", ""):
        table.add_column(heading, no_wrap=heading == "what")
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row("", f"[bold]{escape(section)}[/]", "")
        remedy = f"\n[bold]-> {escape(row.remedy)}[/]" if row.remedy else ""
        table.add_row(SIGNS[row.state], f"  {escape(row.name)}", escape(row.fact) + remedy)
    return table


def _verdict(rows: list[Row]) -> str:
    bad = [f"{row.section}: {row.name}" for row in rows if row.state == "bad"]
    if not bad:
        return "[green]green[/]"
    return f"[bold red]not green[/]: {escape(', '.join(bad))}"
