"""What `greenpg COMMAND` asks of a command's module, wherever that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

DSN_HELP: Final = "default: GREENPG_DSN, or an embedded server"


class CommandError(Exception):
    """A command cannot be carried out; the text is the reason."""


class Command(Protocol):
    """A module with these functions."""

    def add_parser(
        self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], /
    ) -> None: ...

    def run(self, args: argparse.Namespace, /) -> int: ...


def console_of(width: int) -> Console:
    """Return the console for a command's output, of this width where it is not a terminal."""
    from rich.console import Console  # late: `greenpg --version` does not require rich

    console = Console()
    if not console.is_terminal:
        console.width = width
    return console
