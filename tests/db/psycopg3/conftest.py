"""Fixtures of the tests of psycopg 3's green connections."""

from __future__ import annotations

import pytest

from greenpg import psycopg3
from greenpg_conformance.toolkit.observer import Observer


@pytest.fixture
def connect(dsn):
    """`psycopg3.connect` to the test server; its connections are closed after the test."""
    made = []

    def connected(given=dsn, **options):
        made.append(psycopg3.connect(given, **options))
        return made[-1]

    yield connected
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect):
    return connect()


@pytest.fixture
def auto(connect):
    """A connection under autocommit."""
    return connect(autocommit=True)


@pytest.fixture
def observer(dsn):
    made = Observer(dsn)
    yield made
    made.close()
