"""The command line: `greenpg COMMAND`, or `python -m greenpg COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from greenpg import __libpq_version__, __version__, version
from greenpg._command import Command, CommandError
from greenpg._helper_process import ChildError

__all__ = ["main"]

COMMANDS: Final = {
    "demo": ("greenpg_bench.demo.command", "watch 200 tasks share 10 connections"),
    "serve": ("greenpg.embedded.command", "run a throw-away PostgreSQL until Ctrl-C"),
    "top": ("greenpg.monitor.command", "watch the pools of a program that serves greenpg.monitor"),
    "doctor": ("greenpg.doctor.command", "check whether this environment, or a program, is green"),
    "bench": ("greenpg_bench.command", "compare greenpg's speed with its peers'"),
    "conformance": ("greenpg_conformance.command", "check that a backend follows the rules"),
}
NEEDS_RICH: Final = (
    "needs rich; pip install 'greenpg[cli]', or 'greenpg[server]' for an embedded PostgreSQL too"
)
HUNG_UP: Final = 141  # the exit code of shells for a command that SIGPIPE ended
INTERRUPTED: Final = 130  # the exit code of shells for a command that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code."""
    if sys.stdout is None:  # closed (`>&-`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, not while the interpreter ends, which prints a traceback
    except BrokenPipeError:
        return _hung_up()


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    asked = next((word for word in words if word in COMMANDS), "")
    try:
        command = _load(asked) if asked else None
        if not words:
            _parser(asked, command).print_help()
            return 0
        args = _parser(asked, command).parse_args(words)
        return command.run(args) if command else 0
    except KeyboardInterrupt:
        return _fail(asked, "interrupted", INTERRUPTED)
    except ModuleNotFoundError as err:
        of_rich = f"{err.name}.".startswith("rich.")
        return _fail(asked, NEEDS_RICH if of_rich else str(err))
    except (ChildError, CommandError) as err:
        return _fail(asked, str(err))


def _load(name: str) -> Command:
    """Import this command only: the others may need packages that are not installed."""
    module: Command = import_module(COMMANDS[name][0])
    return module


def _parser(asked: str, command: Command | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="greenpg", description="PostgreSQL for green threads.")
    facts = f"greenpg {version}, psycopg2 {__version__}, libpq {__libpq_version__}"
    parser.add_argument("--version", action="version", version=facts)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        if command is not None and name == asked:
            command.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _hung_up() -> int:
    """Let the interpreter's last flush succeed where the reader of a pipe has gone (`| head`)."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return HUNG_UP


def _fail(asked: str, text: str, code: int = 1) -> int:
    sys.stderr.write(f"greenpg {asked}: {text}\n")
    return code
