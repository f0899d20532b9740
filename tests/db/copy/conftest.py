"""Fixtures and helpers of the tests of copy."""

from __future__ import annotations

import psycopg2
import pytest


@pytest.fixture
def cur(conn):
    """A cursor in a transaction that made the table t."""
    made = conn.cursor()
    made.execute("create temp table t (id int primary key, data text)")
    return made


def lines(count, text="some text"):
    return "".join(f"{n}\t{text}\n" for n in range(count))


def table(cur, query="select * from t order by id"):
    cur.execute(query)
    return cur.fetchall()


def failing(cur, file):
    cur.connection.commit()
    with pytest.raises(psycopg2.Error):
        cur.copy_from(file, "no such table")
    cur.connection.rollback()


class Reader:
    """The least that copy_from requires of a file; keeps the requested sizes."""

    def __init__(self, *pieces):
        self._pieces = [*pieces]
        self.sizes = []

    def read(self, size):
        self.sizes.append(size)
        piece = self._pieces.pop(0) if self._pieces else ""
        if isinstance(piece, BaseException):
            raise piece
        return piece


class Writer:
    """The least that copy_to requires of a file."""

    def __init__(self, error=None):
        self.got = []
        self._error = error

    def write(self, data):
        self.got.append(data)
        if self._error is not None:
            raise self._error
