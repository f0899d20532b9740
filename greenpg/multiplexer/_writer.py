"""From what a task asks to what is sent."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from psycopg2 import InterfaceError, ProgrammingError
from psycopg2 import extensions as ext

from greenpg._protocol.parameters import is_literal
from greenpg._psycopg2.psycopg2_c import c_cursor

from ._group import Group
from ._scan import refusal
from ._texts import Pace, Text, Texts


class Writer:
    """Writes groups of statements, prepared ones where a text is used often.

    `cursor` waits for a connection and returns a cursor of it: psycopg2 writes values as the
    session's encoding requires.
    """

    def __init__(
        self, name: str, slow: float, threshold: int | None, cursor: Callable[[], Any]
    ) -> None:
        self.texts = Texts(slow)
        self._name = name
        self._threshold = inf if threshold is None else threshold
        self._cursor = cursor

    def one(self, query: Any, vars: Any = None, prepared: bool = True) -> Group:
        """Return the group of one statement; ProgrammingError if it is refused."""
        if type(query) is not str or not prepared:
            return self._plain(query, vars)
        text = self.texts[query]
        if text.may_be_prepared:
            self._count(query, text)
        if vars is None:
            form, values, size = text.form, None, 0
        else:
            form, values, size = text.prepared(vars) or (None, None, 0)
        if form is not None:
            if not form.rest:
                return Group(form.statements, text.pace, form, values, size)
            form.rest -= 1
        return self._plain(query, vars)

    def _count(self, query: str, text: Text) -> None:
        if text.uses >= self._threshold:
            text.prepare(query, self._codec())
        text.uses += 1

    def _plain(self, query: Any, vars: Any) -> Group:
        sql, pace = self.statement(query, vars)
        return Group((sql,), pace)

    def statement(self, query: Any, vars: Any) -> tuple[bytes, Pace]:
        """Return a statement as text, and its pace; ProgrammingError if it is refused."""
        if not isinstance(query, str):
            sql = self._mogrified(query, vars)
            text = sql.decode(self._codec(), "replace")
            self._refuse(refusal(text))
            return sql, self.texts.pace(text)
        known = self.texts[query]
        self._refuse(known.refusal)
        if vars is None:
            if known.sql is None:
                known.sql = self._mogrified(query, None)
            return known.sql, known.pace
        sql = self._mogrified(query, vars)
        if known.is_open or not _are_literals(vars):
            self._refuse(refusal(sql.decode(self._codec(), "replace")))
        return sql, known.pace

    def _mogrified(self, query: Any, vars: Any) -> bytes:
        while True:
            cur = self._cursor()
            try:
                sql: bytes = c_cursor.mogrify(cur, query, vars)
                return sql
            except InterfaceError:
                if not cur.connection.closed:  # else it was lost meanwhile, in another OS thread
                    raise

    def _codec(self) -> str:
        return ext.encodings[self._cursor().connection.encoding]

    def _refuse(self, why: str | None) -> None:
        if why is not None:
            remedy = "execute it on a connection of a ConnectionPool"
            raise ProgrammingError(f"multiplexer {self._name!r}: {why}; {remedy}")


def _are_literals(vars: Any) -> bool:
    """Return True if parameters are written as literals, whose place is all that can matter."""
    if type(vars) is dict:
        vars = vars.values()
    elif type(vars) not in (tuple, list):
        return False
    return all(map(is_literal, vars))
