"""What `greenpg COMMAND` asks of a command's module, wherever that is."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Protocol

import psycopg2
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

if TYPE_CHECKING:
    from rich.console import Console

DSN_HELP: Final = "default: GREENPG_DSN, or an embedded server"
NOT_A_DSN: Final = "DSN is neither 'key=value ...' nor 'postgresql://...' as libpq reads them"
UNKNOWN_KEY: Final = re.compile('(?:connection option|query parameter:) "([^"]*)"')  # libpq's texts
MAY_BE_SECRET: Final = re.compile("pass|secret|key|:", re.IGNORECASE)
KEYS: Final = (  # those that are typed by hand
    "dbname", "user", "password", "host", "hostaddr", "port", "service", "passfile", "options",
    "connect_timeout", "application_name", "client_encoding", "target_session_attrs",
    "load_balance_hosts", "keepalives", "tcp_user_timeout", "require_auth", "channel_binding",
    "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslnegotiation", "gssencmode",
)  # fmt: skip
PATIENCE: Final = 10  # seconds to connect, unless the connection string says it


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
    if fault := dsn_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def dsn_fault(text: str) -> str | None:
    """Return why libpq cannot parse the connection string, without a password; None if it can."""
    try:
        parse_dsn(text)
    except ProgrammingError as err:
        found = UNKNOWN_KEY.search(str(err))
        return _unknown_key(found[1], text) if found else NOT_A_DSN  # libpq's text may quote it
    return None


def _unknown_key(key: str, text: str) -> str:
    """Name the key, unless it may be the rest of a password with a space or a question mark."""
    likely = get_close_matches(key, KEYS, 1)
    is_secret = MAY_BE_SECRET.search(text.partition(key)[0])
    if is_secret and not likely:
        return NOT_A_DSN
    named = "a key" if is_secret else f"the key {key!r}"
    hint = f"; did you mean {likely[0]!r}?" if likely else ""
    return f"DSN has {named} that libpq does not know{hint}"


def check_server(dsn: str) -> None:
    """Raise `CommandError` in one line if no connection to the server can be made."""
    if fault := dsn_fault(dsn):  # of the environment
        raise CommandError(f"GREENPG_DSN: {fault}")
    try:
        limit = parse_dsn(dsn).get("connect_timeout", PATIENCE)
        psycopg2.connect(dsn, connect_timeout=limit).close()
    except psycopg2.Error as err:
        raise CommandError(printable(" ".join(str(err).split()))) from err


def printable(text: str) -> str:
    """Return a text with "?" in place of what is not printable and may move the cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def console_of(width: int) -> Console:
    """Return the console for a command's output, of this width where it is not a terminal."""
    from rich.console import Console  # late: `greenpg --version` does not require rich

    console = Console()
    if not console.is_terminal:
        console.width = width
    return console
