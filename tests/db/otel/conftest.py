"""Fixtures of the tests of spans: connections of both drivers."""

from __future__ import annotations

import psycopg
import pytest

import greenpg
from greenpg import psycopg3


@pytest.fixture
def either(dsn, driver):
    """A connection of each driver under autocommit."""
    made = (psycopg3 if driver is psycopg else greenpg).connect(dsn)
    made.autocommit = True
    yield made
    made.close()
