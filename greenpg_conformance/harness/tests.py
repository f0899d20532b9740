"""The suite's tests: plain functions `test_...(ctx)`, found in its modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

MODULES: Final = {
    "rules": ("waits", "tasks", "parking", "watcher", "hub", "os_threads"),
    "storm": ("storm", "starved"),
    "driver": (
        "sharing", "inside", "forks", "interrupts", "doomed", "deadlines", "cancelling",
        "closing", "connecting", "authenticating", "startup", "copy", "copy_stopped", "lobject",
        "pipeline", "streaming", "notify", "replication", "pool", "pool_outages", "multiplexer",
        "descriptors",
    ),
}  # fmt: skip
FOR_BACKENDS: Final = ("rules", "storm")  # the parts that a backend's author must satisfy
SECONDS: Final = 40.0  # an ordinary one takes less than one, more if the machine is busy
PSYCOPG2_NAME: Final = "psycopg2"
PSYCOPG_NAME: Final = "psycopg"
_F = TypeVar("_F", bound=Callable[..., None])


class Skip(Exception):
    """The test cannot run here, for the reason given; a failure when the suite is strict."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test, or one case of it. `needs` are names from `Backend.capabilities`."""

    __test__: ClassVar = False  # pytest is not to collect the class
    module: str
    name: str
    case: str
    needs: frozenset[str]
    limit: float
    function: Callable[..., None]
    driver: str = PSYCOPG2_NAME

    @property
    def row(self) -> str:
        """The test without its case: `module.name`."""
        return f"{self.module}.{self.name}"

    @property
    def id(self) -> str:
        """What names the test everywhere: `module.name[case]`, with the driver if it is another."""
        over = "psycopg 3" if self.driver == PSYCOPG_NAME else ""
        told = ": ".join(filter(None, (over, self.case)))
        return f"{self.row}[{told}]" if told else self.row

    def run(self, ctx: Any) -> None:
        """Call the function, with the case if it has one."""
        self.function(ctx, *([self.case] if self.case else []))


def needs(*capabilities: str) -> Callable[[_F], _F]:
    """Skip the test on a backend whose `capabilities` lack one of these."""
    return _mark("needs", frozenset(capabilities))


def limit(seconds: float) -> Callable[[_F], _F]:
    """Give the test so many seconds before it counts as hanging."""
    return _mark("limit", seconds)


def each(*cases: str) -> Callable[[_F], _F]:
    """Run the test once for each case, which it gets as its second argument."""
    return _mark("cases", cases)


def over_psycopg(*cases: str) -> Callable[[_F], _F]:
    """Run the test over psycopg 3 too, for these cases, by default all; `ctx.driver` is it then."""
    return _mark("psycopg", cases)


def _mark(name: str, value: object) -> Callable[[_F], _F]:
    def mark(function: _F) -> _F:
        setattr(function, f"_{name}", value)
        return function

    return mark


def discover(parts: Iterable[str] = MODULES) -> list[Test]:
    """Return the tests of the suite's parts, in the order in which they stand in their modules."""
    return [test for part in parts for name in MODULES[part] for test in _of_module(part, name)]


def _of_module(part: str, name: str) -> list[Test]:
    module = importlib.import_module(f"greenpg_conformance.{part}.{name}")
    found = [thing for title, thing in vars(module).items() if title.startswith("test_")]
    functions = [function for function in found if function.__module__ == module.__name__]
    return [test for function in functions for test in cases_of(name, function)]


def cases_of(module: str, function: Any) -> list[Test]:
    """Return the tests that a function stands for, one for each of its cases."""
    name = function.__name__.removeprefix("test_")
    needed: frozenset[str] = getattr(function, "_needs", frozenset())
    seconds, cases = getattr(function, "_limit", SECONDS), getattr(function, "_cases", ("",))
    found = [Test(module, name, case, needed, seconds, function) for case in cases]
    over: tuple[str, ...] | None = getattr(function, "_psycopg", None)
    if over is not None:
        again = over or cases
        found += [
            Test(module, name, case, needed, seconds, function, PSYCOPG_NAME) for case in again
        ]
    return found


class raises:
    """Fails unless the block raises one of these, with `words` in the text; `error` keeps it."""

    def __init__(self, *kinds: type[BaseException], words: str = "") -> None:
        self.error: Any = None
        self._kinds, self._words = kinds, words

    def __enter__(self) -> raises:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        self.error = error
        if error is None:
            expected = " or ".join(kind.__name__ for kind in self._kinds)
            raise AssertionError(f"nothing was raised, {expected} expected")
        if not isinstance(error, self._kinds):
            return False
        assert self._words in str(error), f"{self._words!r} is not in {str(error)!r}"
        return True
