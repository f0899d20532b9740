"""Checks of arguments, whose errors name the argument, its value and what to give instead.

A mistake that is found only in greenpg's own tasks could be raised to nobody. Numbers are checked
by one addition and one comparison, which fail for anything else: no look at their types is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from operator import index
from typing import Any, Final

__all__ = [
    "check_conninfo", "check_conninfo_source", "check_count", "check_functions", "check_members",
    "check_number", "check_options", "check_seconds", "check_texts", "error_classes",
]  # fmt: skip

_NUMBER: Final = "give a number; float('inf') means no limit"
_SECONDS: Final = "give a number of seconds"
_WHOLE: Final = "give a whole number"
_OR_NONE: Final = ", or None"


def check_number(name: str, value: Any, least: float = 0, remedy: str = _NUMBER) -> None:
    """TypeError unless an argument is a number, ValueError if it is below `least` or NaN."""
    try:
        if least <= value + 0.0:
            return
    except (TypeError, OverflowError):
        raise TypeError(f"{name}={value!r}: {remedy}") from None
    if least > -inf:
        remedy = f"give at least {least}"
    raise ValueError(f"{name}={value!r}: {remedy}")


def check_seconds(
    name: str, value: Any, least: float = -inf, *, none: bool = False, above: float = -inf
) -> None:
    """TypeError unless an argument is a number of seconds, or None where `none` is true.

    Seconds that have passed already, which a program may have computed, are none at all.
    """
    if value is None and none:
        return
    check_number(name, value, least, _SECONDS + _OR_NONE * none)
    if value <= above > -inf:
        raise ValueError(f"{name}={value!r}: give more than {above} seconds")


def check_count(
    name: str, value: Any, least: float = 0, *, most: float = inf, none: bool = False
) -> None:
    """TypeError unless an argument is a whole number, or None where `none` is true."""
    if value is None and none:
        return
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: {_WHOLE}{_OR_NONE * none}") from None
    if not least <= number <= most:
        limits = f"at least {least}" if most == inf else f"{least} to {most}"
        raise ValueError(f"{name}={value!r}: give {limits}")


def check_functions(**options: object) -> None:
    """TypeError unless each option is None or can be called."""
    for name, hook in options.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name}={hook!r}: give a function, or None")


def check_texts(**options: object) -> None:
    """TypeError unless each option is None or a str; the value may be a secret."""
    for name, text in options.items():
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} is of type {type(text).__name__}: give a str")


def check_options(**options: object) -> None:
    """TypeError unless each option is None or a mapping; the values may be secret."""
    for name, each in options.items():
        if each is not None and not isinstance(each, Mapping):
            raise TypeError(f"{name} is of type {type(each).__name__}: give a dict")


def check_conninfo(name: str, value: object, remedy: str = "") -> None:
    """TypeError unless an argument is None or a connection string; the value may be a secret."""
    if not isinstance(value, str | bytes | None):
        raise TypeError(f"{name} is of type {type(value).__name__}: give a str{remedy}")


def check_conninfo_source(name: str, value: object) -> None:
    """TypeError unless an argument is what `check_conninfo` admits, or a function."""
    if not callable(value):
        check_conninfo(name, value, ", or a function; parameters go into kwargs={...}")


def check_members(what: str, member: str, *given: object) -> None:
    """TypeError unless all the objects given are of a kind, known by one of its members."""
    for each in given:
        if not hasattr(each, member):
            raise TypeError(f"{each!r}: give {what}")


def error_classes(name: str, value: Any) -> tuple[type[BaseException], ...]:
    """Return one class or a tuple of them as a tuple; TypeError unless they are exceptions'."""
    classes = value if isinstance(value, tuple) else (value,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"{name}={value!r}: give a tuple of exception classes")
    return classes
