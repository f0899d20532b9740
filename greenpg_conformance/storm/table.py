"""The table of the storm's operations: a function marked with `operation` is a row."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from greenpg_conformance.harness.tests import PSYCOPG2_NAME

if TYPE_CHECKING:
    from .fixture import Fixture

Steps: TypeAlias = Generator[None, None, None]


@dataclass(frozen=True, slots=True)
class Operation:
    """`steps` is the generator; `fresh`: it begins outside a transaction.

    `settles`: even interrupted it has its effect, which `fixture.settled` tells.
    `autocommit` is the mode that it needs, if any. `lax`: an interrupt may come before anything
    was sent, so that the transaction may go on. `loose`: it makes several calls, so any of two
    interrupts may propagate. `elsewhere`: it uses other connections than the fixture's.
    `drivers` are the names of those over which it can be played.
    """

    name: str
    steps: Callable[[Fixture], Steps]
    fresh: bool = False
    autocommit: bool | None = None
    lax: bool = False
    loose: bool = False
    elsewhere: bool = False
    settles: bool = False
    drivers: tuple[str, ...] = (PSYCOPG2_NAME,)


OPERATIONS: list[Operation] = []


def operation(**traits: Any) -> Callable[[Callable[[Fixture], Steps]], Callable[[Fixture], Steps]]:
    """Add a generator to the table."""

    def add(steps: Callable[[Fixture], Steps]) -> Callable[[Fixture], Steps]:
        OPERATIONS.append(Operation(steps.__name__, steps, **traits))
        return steps

    return add
