"""Texts with placeholders as texts with $1, $2..., where both mean the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from greenpg._protocol.parameters import CASTS, NULL, UNKNOWN, plain_value

from ._scan import Token, tokens_of

Values: TypeAlias = "tuple[tuple[int, ...], list[bytes | None]]"  # types, and values as text

# These end a list after BY, in which a number that is a literal means a column.
_AFTER_BY: Final = frozenset((
    "except", "fetch", "for", "groups", "having", "intersect", "limit", "offset", "range", "rows",
    "union", "window",
))  # fmt: skip
_COMMANDS: Final = frozenset(("delete", "insert", "merge", "select", "update", "values", "with"))
MOST: Final = 65535  # parameters of a statement, in the protocol
_PART_OF_A_WORD: Final = re.compile(r"[\w$'\"]")
_NUMBERED: Final = re.compile(r"\$[0-9]")


def may_be_prepared(query: str) -> bool:
    """Return True for a command that is planned; others cannot have parameters."""
    if _NUMBERED.search(query):
        return False
    words = (token for token, _ in tokens_of(query) if token.value != "(")
    first = next(words, None)
    return first is not None and first.kind == "word" and first.value in _COMMANDS


class Template:
    """A text whose placeholders stand for values, as $1, $2..."""

    def __init__(self, parts: list[str], keys: list[str] | None, encoding: str) -> None:
        self._parts = parts  # what stands around the placeholders
        self._keys, self._width, self._encoding = keys, len(parts) - 1, encoding

    def sql(self, types: tuple[int, ...]) -> bytes:
        """Return the text for parameters of some types, cast as psycopg2 casts its literals."""
        marks = [f"${number}{CASTS.get(kind, '')}" for number, kind in enumerate(types, 1)]
        pairs = zip(self._parts, [*marks, ""], strict=True)
        return "".join(map("".join, pairs)).encode(self._encoding)

    @classmethod
    def of(cls, query: str, encoding: str) -> Template | None:
        """Return a text's template; None if $1 could mean something else than a literal there."""
        parts, keys, last = list[str](), list[str | None](), 0
        places = _Places()
        for token, end in tokens_of(query):
            if token.kind == "mark":
                start = end - len(token.value)
                around = query[max(start - 1, 0) : start] + query[end : end + 1]
                if places.number_is_a_column() or _PART_OF_A_WORD.search(around):
                    return None
                keys.append(query[start + 2 : end - 2] if token.value != "%s" else None)
                parts.append(query[last:start])
                last = end
            places.add(token)
        if query.count("%") != len(keys) or len(keys) > MOST or (None in keys and any(keys)):
            return None
        names = [key for key in keys if key is not None]
        return cls([*parts, query[last:]], names or None, encoding)

    def encoded(self, vars: Any) -> Values | None:
        """Return the values, or None if psycopg2 has to write them."""
        if self._keys is not None:
            if not isinstance(vars, Mapping) or not all(key in vars for key in self._keys):
                return None
            vars = [vars[key] for key in self._keys]
        elif type(vars) not in (tuple, list):
            return None
        if len(vars) != self._width:
            return None
        types: list[int] = []
        values: list[bytes | None] = []
        for value in vars:
            plain = plain_value(value, self._encoding)
            if plain is None:
                return None
            types.append(UNKNOWN if plain[0] == NULL else plain[0])
            values.append(plain[1])
        return tuple(types), values


class _Places:
    """Where in a statement the next token stands, as far as it matters to a number."""

    def __init__(self) -> None:
        self._in_list = [False]  # of ORDER BY, GROUP BY or DISTINCT ON, for each open parenthesis
        self._last = ""

    def number_is_a_column(self) -> bool:
        return any(self._in_list)

    def add(self, token: Token) -> None:
        kind, value = token
        if kind == "sign" and value == "(":
            self._in_list.append(self._last == "distinct on")
        elif kind == "sign" and value == ")" and len(self._in_list) > 1:
            self._in_list.pop()
        elif kind == "word" and value == "by":
            self._in_list[-1] = True
        elif kind == "word" and value in _AFTER_BY:
            self._in_list[-1] = False
        self._last = "distinct on" if (self._last, value) == ("distinct", "on") else value
