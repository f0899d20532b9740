"""The doctor's findings, and passwords kept out of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

__all__ = ["Row", "Secrets", "State", "is_green", "unquoted"]

State: TypeAlias = Literal["good", "fact", "note", "bad"]
SECRET: Final = ("password", "sslpassword", "scram_client_key", "oauth_client_secret")
HIDDEN: Final = "***"
QUOTES_A_DSN: Final = re.compile(  # libpq's fe-connect.c, and psycopg2's prefix
    "invalid dsn|connection info(rmation)? string|connection (option|string)|percent-encoded"
    "|forbidden value %00|in URI|URI query parameter|invalid URI"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One finding: a "note" deserves attention, a "bad" row makes the environment not green."""

    section: str
    name: str
    state: State
    fact: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the row as an object for `json`."""
        return asdict(self)


def is_green(rows: list[Row]) -> bool:
    """Return True if no row is bad."""
    return all(row.state != "bad" for row in rows)


def unquoted(error: str) -> str:
    """Return "type: text", or only the type where the text may quote an unparsed password."""
    return error.partition(":")[0] if QUOTES_A_DSN.search(error) else error


class Secrets:
    """Removes the passwords of a connection string, and of the environment, from rows."""

    def __init__(self, dsn: str | None) -> None:
        found = {text for secret in _secrets(dsn) for text in (secret, quote(secret, safe=""))}
        self._texts = sorted(found, key=len, reverse=True)

    def hide(self, row: Row) -> Row:
        """Return the row without passwords."""
        return replace(row, fact=self._hidden(row.fact), remedy=self._hidden(row.remedy))

    def _hidden(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text


def _secrets(dsn: str | None) -> Iterator[str]:
    yield from filter(None, [os.environ.get("PGPASSWORD")])
    try:
        given = parse_dsn(dsn or "")
    except ProgrammingError:  # a malformed DSN is not used anywhere
        return
    yield from (given[name] for name in SECRET if given.get(name))
