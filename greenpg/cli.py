"""The command line: `greenpg COMMAND`, or `python -m greenpg COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol

from greenpg import __libpq_version__, __version__, version
from greenpg._helper_process import ChildError

__all__ = ["CommandError", "main"]

COMMANDS: Final = {
    "demo": "watch 200 tasks share 10 connections",
    "doctor": "check whether this environment, or a program, is green",
    "bench": "compare greenpg's speed with its peers'",
    "conformance": "check that a backend follows the driver's rules",
}
INTERRUPTED: Final = 130  # the exit code of shells for a command that Ctrl-C ended


class CommandError(Exception):
    """A command cannot be carried out; the text is the reason."""


class _Command(Protocol):
    def add_parser(
        self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], /
    ) -> None: ...

    def run(self, args: argparse.Namespace, /) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    asked = next((word for word in words if word in COMMANDS), "")
    try:
        command = _load(asked) if asked else None
        args = _parser(asked, command).parse_args(words)
        return command.run(args) if command else 0
    except KeyboardInterrupt:
        return _fail(asked, "interrupted", INTERRUPTED)
    except (ChildError, CommandError, ModuleNotFoundError) as err:
        return _fail(asked, str(err))


def _load(name: str) -> _Command:
    """Import this command only: the others may need packages that are not installed."""
    try:
        module: _Command = import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as err:
        raise CommandError(f"needs {err.name}; pip install 'greenpg[server]'") from err
    return module


def _parser(asked: str, command: _Command | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="greenpg", description="PostgreSQL for green threads.")
    facts = f"greenpg {version}, psycopg2 {__version__}, libpq {__libpq_version__}"
    parser.add_argument("--version", action="version", version=facts)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if command is not None and name == asked:
            command.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _fail(asked: str, text: str, code: int = 1) -> int:
    sys.stderr.write(f"greenpg {asked}: {text}\n")
    return code
