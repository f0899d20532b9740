"""Rows about how a program uses its drivers: open connections that are not green, two at once."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg2
from psycopg2.extensions import connection as plain_connection

from greenpg.connection import Connection

from .rows import Row

SECTION: Final = "program"
NAMES: Final = {"psycopg2": "psycopg2", "psycopg": "psycopg 3"}
PATCHES: Final = {"psycopg2": "patch_psycopg", "psycopg": "patch_psycopg3"}
OWN: Final = ("greenpg", "psycopg", "psycopg2", "sqlalchemy", "django", "psycogreen")
SHOWN: Final = 3  # of several places
SWITCH: Final = (2, 1)  # the SQLAlchemy whose bare postgresql:// means psycopg 3

_places: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()


class Drivers(NamedTuple):
    """Whether the connections of psycopg2 and of psycopg 3 are made green."""

    psycopg2: bool
    psycopg: bool


def drivers(green: Drivers, patch_of: Callable[[str], str]) -> Iterator[Row]:
    """Yield rows where there is something to say; `patch_of` returns the line with a call."""
    for driver, is_green, found in zip(NAMES, green, (_plain2(), _plain3()), strict=True):
        if is_green and found:
            yield _older(driver, found)
    yield from _both(green, patch_of)
    yield from _sqlalchemy(green, patch_of)


@contextmanager
def recorded() -> Iterator[None]:
    """Record where psycopg2.connect makes plain connections; a patch in the block ends that."""
    module: Any = psycopg2
    make = module._connect

    @functools.wraps(make)
    def recording(*args: Any, **options: Any) -> Any:
        conn = make(*args, **options)
        _places[conn] = _caller()
        return conn

    module._connect = recording
    try:
        yield
    finally:
        if module._connect is recording:
            module._connect = make


def _caller() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and _is_of_driver(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    file = frame.f_code.co_filename
    return f"{file.removeprefix(os.getcwd() + os.sep)}:{frame.f_lineno}"


def _is_of_driver(module: str) -> bool:
    return module.partition(".")[0] in OWN


def _older(driver: str, found: list[Any]) -> Row:
    places = [*dict.fromkeys(place for conn in found if (place := _places.get(conn)))]
    number = f"1 {NAMES[driver]} connection is"
    if len(found) > 1:
        number = f"{len(found)} {NAMES[driver]} connections are"
    made = f", made at {_short(places)}" if places else ""
    fact = f"{number} older than the patch{made}: not sharable, nor usable after an interrupt"
    remedy = f"call {PATCHES[driver]}() before the first connection is made"
    return Row(SECTION, "older connections", "bad", fact, remedy)


def _plain2() -> list[Any]:
    """Return psycopg2's open connections that are not green, but for asynchronous ones."""
    found = _instances(plain_connection)
    return [c for c in found if not (isinstance(c, Connection) or c.closed or c.async_)]


def _plain3() -> list[Any]:
    module, ours = sys.modules.get("psycopg"), sys.modules.get("greenpg.psycopg3")
    if module is None or ours is None:
        return []
    found = _instances(module.Connection)
    return [c for c in found if not (isinstance(c, ours.Connection) or c.closed)]


def _instances(kind: type) -> list[Any]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kind)]


def _both(green: Drivers, patch_of: Callable[[str], str]) -> Iterator[Row]:
    """Yield a row if the program imports both drivers: a patch serves one of them."""
    users = {driver: _importers(driver) for driver in NAMES}
    if not all(users.values()):
        return
    where = " and ".join(f"{NAMES[driver]} in {_short(found)}" for driver, found in users.items())
    plain = [driver for driver, is_green in zip(NAMES, green, strict=True) if not is_green]
    if len(plain) != 1:
        yield Row(SECTION, "two drivers", "fact" if plain else "good", where)
        return
    fact = f"{where}; connections of {NAMES[plain[0]]} are plain"
    yield Row(SECTION, "two drivers", "note", fact, patch_of(PATCHES[plain[0]]))


def _short(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _importers(driver: str) -> list[str]:
    """Return the program's modules that have imported a driver, or something from it."""
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if not _is_of_driver(name.partition("_")[0])
        and any(_home(value) == driver for value in list(getattr(module, "__dict__", {}).values()))
    )


def _home(value: object) -> str:
    """Return the package of a module, a function or a class; lazy proxies are not woken."""
    kind = type(value)
    if kind is MethodType:  # psycopg.connect is a class method
        return _home(getattr(value, "__self__", None))
    if kind is ModuleType:
        return str(vars(value).get("__name__", "")).partition(".")[0]
    if kind is FunctionType or issubclass(kind, type):
        return str(getattr(value, "__module__", "")).partition(".")[0]
    return ""


def _sqlalchemy(green: Drivers, patch_of: Callable[[str], str]) -> Iterator[Row]:
    module = sys.modules.get("sqlalchemy")
    version = str(getattr(module, "__version__", "0"))
    if tuple(map(int, version.split(".")[:2])) < SWITCH:
        return
    fact = f"{version}: a bare postgresql:// means psycopg 3"
    if green.psycopg or not green.psycopg2 or "greenpg.sqlalchemy" in sys.modules:
        yield Row(SECTION, "SQLAlchemy", "fact", fact)
        return
    remedy = f"write postgresql+psycopg2://, or {patch_of(PATCHES['psycopg'])}"
    yield Row(SECTION, "SQLAlchemy", "note", f"{fact}, but only psycopg2 is patched", remedy)
