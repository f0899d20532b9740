"""Statements that are written before their operation begins.

Adapters, lazy mappings and `sql.Composable` objects are the program's code and may use the
connection: psycopg2 calls them before it takes its mutex.
"""

from __future__ import annotations

from typing import Any, Final

from ._psycopg2.psycopg2_c import c_cursor

mogrify: Final[Any] = c_cursor.mogrify
PLACEHOLDER: Final = "%s"


class Written:
    """A parameter that has been adapted, or the error of its adapter, for psycopg2 to raise."""

    __slots__ = ("_error", "_text")

    def __init__(self, text: bytes, error: Exception | None = None) -> None:
        self._text = text
        self._error = error

    def __conform__(self, protocol: object) -> Written:
        return self

    def getquoted(self) -> bytes:
        """Return the SQL text."""
        if self._error is not None:
            raise self._error
        return self._text


def written(cur: Any, query: Any, vars: Any) -> tuple[Any, Any]:
    """Return the query and the variables with which psycopg2 runs the statement, or fails.

    An interrupt in an adapter is one of the statement's operation.
    """
    try:
        return mogrify(cur, query, vars), None
    except BaseException as error:
        return PLACEHOLDER, (_failed(cur, error),)


def write(cur: Any, query: Any, vars: Any) -> Written:
    """Write a statement as a parameter; otherwise as `written`."""
    try:
        return Written(mogrify(cur, query, vars))
    except BaseException as error:
        return _failed(cur, error)


def _failed(cur: Any, error: BaseException) -> Written:
    if isinstance(error, Exception):
        return Written(b"", error)
    cur.connection._greenpg_state.note_outside(cur.connection)
    raise error


def write_each(cur: Any, parameters: Any) -> Any:
    """Write the parameters of `callproc`; what is neither a dict nor a sequence is unchanged."""
    if isinstance(parameters, dict):
        return {key: write(cur, PLACEHOLDER, (one,)) for key, one in parameters.items()}
    try:
        given = [parameters[place] for place in range(len(parameters))]
    except Exception:
        return parameters
    return [write(cur, PLACEHOLDER, (one,)) for one in given]
