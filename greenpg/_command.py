"""What `greenpg COMMAND` asks of a command's module, wherever that is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final, Protocol

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

if TYPE_CHECKING:
    from rich.console import Console

DSN_HELP: Final = "default: GREENPG_DSN, or an embedded server"
NOT_A_DSN: Final = "DSN is neither 'key=value ...' nor 'postgresql://...' as libpq reads them"


class CommandError(Exception):
    """A command cannot be carried out; the text is the reason."""


class Command(Protocol):
    """A module with these functions."""

    def add_parser(
        self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], /
    ) -> None: ...

    def run(self, args: argparse.Namespace, /) -> int: ...


def add_dsn(parser: argparse.ArgumentParser, text: str = DSN_HELP) -> None:
    """Add the connection string: an argument, or the option `--dsn`."""
    given = parser.add_mutually_exclusive_group()
    given.add_argument("dsn", nargs="?", type=dsn, action=_Given, metavar="DSN", help=text)
    given.add_argument("--dsn", type=dsn, metavar="DSN", help="the same")


class _Given(argparse.Action):
    """Stores an argument that is there; an absent one must not replace the option's value."""

    def __call__(
        self, _parser: object, namespace: object, value: object, _option: str | None = None
    ) -> None:
        if value is not None:
            setattr(namespace, self.dest, value)


def dsn(text: str) -> str:
    """Return a connection string that libpq can parse; for `argparse`."""
    if not is_dsn(text):
        raise argparse.ArgumentTypeError(NOT_A_DSN)  # libpq's text may quote the password
    return text


def is_dsn(text: str) -> bool:
    """Return True if libpq can parse the connection string."""
    try:
        parse_dsn(text)
    except ProgrammingError:
        return False
    return True


def console_of(width: int) -> Console:
    """Return the console for a command's output, of this width where it is not a terminal."""
    from rich.console import Console  # late: `greenpg --version` does not require rich

    console = Console()
    if not console.is_terminal:
        console.width = width
    return console
