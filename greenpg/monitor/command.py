"""`greenpg top`: the monitor's page of another process, in a terminal."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rich.live import Live

from greenpg._command import CommandError, console_of, printable

from ._reader import Lost, Reader
from ._terminal import Screen

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ._snapshot import Json

WIDTH: Final = 120  # where the output is no terminal
RETRY: Final = 1.0  # seconds until a lost stream is opened again
TOKEN: Final = "GREENPG_MONITOR_TOKEN"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `top` command."""
    parser = subparsers.add_parser(
        "top",
        help="watch the pools of a program that serves greenpg.monitor",
        description="Show the pools of a program that serves greenpg.monitor until Ctrl-C: who "
        "holds connections, who waits, stalls and errors.",
    )
    text = f"the page's address; its token: '?token=...' at the end, or {TOKEN}"
    parser.add_argument("url", metavar="URL", help=text)
    parser.add_argument(
        "--once",
        action="store_true",
        help="print once and exit; the default if the output is no terminal",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show what the page shows until Ctrl-C, which is the regular end."""
    console = console_of(WIDTH)
    try:
        reader = Reader(args.url, os.environ.get(TOKEN))
        first = reader.data()
    except (ValueError, Lost) as error:
        raise CommandError(printable(str(error))) from error
    screen = Screen(first, blocks=console.encoding.startswith("utf"))
    if args.once or not console.is_terminal:
        console.print(screen.draw(console.width))
        return 0
    with (
        suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        for shown, screen.lost in _frames(reader):
            if shown is not None:
                screen.note(shown)
            live.update(screen.draw(console.width), refresh=True)
    return 0


def _frames(reader: Reader) -> Iterator[tuple[Json | None, str]]:
    """Yield what the page's stream brings, without end; None and the reason where it is lost."""
    while True:
        try:
            for shown in reader.events():
                yield shown, ""
        except Lost as error:
            yield None, f"{error}; trying again"
        time.sleep(RETRY)
