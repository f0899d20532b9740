"""Prepared statements: forms of texts, and what a connection has of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from os import urandom
from typing import Any, Final

from .libpq import libpq, oids

_CACHED_PLAN: Final = b"0A000", b"RevalidateCachedQuery"  # its result would have other columns
_UNKNOWN_NAME: Final = b"26000"  # DISCARD ALL, or another server behind a pooler
_TYPE_IS_GONE: Final = b"cache lookup failed for type"  # of a parameter; an internal error
_numbers: Final = itertools.count(1)


class Form:
    """A text with $1, $2... and the types of its parameters; one object for each such pair."""

    __slots__ = ("_failures", "rest", "sql", "statements", "types")

    def __init__(self, sql: bytes, types: tuple[int, ...]) -> None:
        self.sql, self.types = sql, types
        self.statements = (sql,)
        self.rest = 0  # uses for which it is not prepared, since that has failed
        self._failures = 0

    def fail(self) -> None:
        """Note that it could not be prepared; that is tried again after ten times as many uses."""
        self._failures += 1
        self.rest = 10**self._failures


class Prepared:
    """A form prepared under a name on one connection, with its columns' types once known."""

    __slots__ = ("name", "oids", "used")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.oids: list[int] | None = None
        self.used = 0.0


Command = Callable[[Any], int]  # queues something on a PGconn; 0 if libpq refuses


class Statements:
    """The forms prepared on one connection, at most `most`; the least recently used one goes.

    Any thread may drop a form while another one prepares. No name is one of another process or
    connection: behind a pooler they may share a session.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._prefix = b"greenpg_%s_" % urandom(8).hex().encode()
        self._prepared: dict[Form, Prepared] = {}
        self._left_over: list[bytes] = []  # names, to be closed on the server
        self.find = self._prepared.get

    def __len__(self) -> int:
        return len(self._prepared)

    def prepare(self, form: Form) -> tuple[Prepared, Sequence[Command]]:
        """Return a form as it will be prepared, and the commands for that."""
        while len(found := list(self._prepared.items())) >= self._most:
            self.drop(*min(found, key=lambda item: item[1].used), True)
        made = self._prepared[form] = Prepared(self._prefix + b"%d" % next(_numbers))
        commands = list[Command]()
        while self._left_over:
            commands.append(_closing(self._left_over.pop()))
        types = oids(form.types)
        commands.append(partial(_prepare, made.name, form.sql, len(form.types), types))
        return made, commands

    def drop(self, form: Form, prepared: Prepared, exists: bool) -> None:
        """Forget a form that does not work; `exists` tells whether the server has it."""
        if self._prepared.get(form) is not prepared:
            return
        with suppress(KeyError):  # another thread was faster
            del self._prepared[form]
            if exists:
                self._left_over.append(prepared.name)


def _prepare(name: bytes, sql: bytes, count: int, types: Any, pgconn: Any) -> int:
    return int(libpq.PQsendPrepare(pgconn, name, sql, count, types))


def _closing(name: bytes) -> Command:
    if libpq.has("PQsendClosePrepared"):  # libpq 17
        return lambda pgconn: int(libpq.PQsendClosePrepared(pgconn, name))
    sql = b"DEALLOCATE " + name
    return lambda pgconn: int(
        libpq.PQsendQueryParams(pgconn, sql, 0, None, None, None, None, 0),
    )


def is_missing(error: Any) -> bool:
    """Return True if a result's error says that the server does not have the statement."""
    return bool(libpq.PQresultErrorField(error, ord("C")) == _UNKNOWN_NAME)


def is_stale(error: Any) -> bool:
    """Return True if a result's error says that its statement must be prepared again.

    Nothing of the statement has run then.
    """
    code, place, text = (libpq.PQresultErrorField(error, ord(field)) for field in "CRM")
    return is_missing(error) or (code, place) == _CACHED_PLAN or _TYPE_IS_GONE in (text or b"")
