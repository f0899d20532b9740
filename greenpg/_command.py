"""What `greenpg COMMAND` asks of a command's module, wherever that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse


class CommandError(Exception):
    """A command cannot be carried out; the text is the reason."""


class Command(Protocol):
    """A module with these functions."""

    def add_parser(
        self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], /
    ) -> None: ...

    def run(self, args: argparse.Namespace, /) -> int: ...
