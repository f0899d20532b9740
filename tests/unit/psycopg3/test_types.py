"""The green classes are psycopg's, as tests/types has type checkers see."""

import psycopg

from greenpg import psycopg3


def test_green_classes_are_psycopgs() -> None:
    assert issubclass(psycopg3.Connection, psycopg.Connection)
    assert issubclass(psycopg3.Cursor, psycopg.Cursor)
