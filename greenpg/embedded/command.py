"""`greenpg serve`: a throw-away PostgreSQL until Ctrl-C."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final

import psycopg2

from ._server import FOLDERS, PASSFILE, EmbeddedServer, running

DATABASE: Final = "app"
ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `serve` command."""
    parser = subparsers.add_parser(
        "serve",
        help="run a throw-away PostgreSQL until Ctrl-C",
        description=f"Start a PostgreSQL with an empty database {DATABASE!r} on 127.0.0.1 and "
        "print the shell's lines for programs that are to use it. Its data is removed at the end.",
    )
    parser.add_argument("--port", type=_port, help="default: a free one")
    parser.add_argument(
        "--version", type=int, choices=FOLDERS, default=min(FOLDERS), help="default %(default)s"
    )
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or another signal to end, which is the regular end."""
    settings = {} if args.port is None else {"port": args.port}
    with suppress(KeyboardInterrupt), running(args.version, settings) as server:
        _create(server)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # one that comes at once is not lost
        sys.stdout.write("\n".join(_lines(server)) + "\n")
        sys.stdout.flush()
        signal.sigwait(ENDS)
    return 0


def _create(server: EmbeddedServer) -> None:
    with closing(psycopg2.connect(server.dsn)) as conn:
        conn.autocommit = True
        conn.cursor().execute(f"create database {DATABASE}")


def _lines(server: EmbeddedServer) -> Iterator[str]:
    yield f"# PostgreSQL {server.version} runs until Ctrl-C. In another terminal:"
    variables = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGDATABASE": DATABASE,
        "PGPASSFILE": str(server.directory / PASSFILE),
    }
    for name, value in variables.items():
        yield f"export {name}={shlex.quote(value)}"
