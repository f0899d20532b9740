"""Fixtures and helpers of the tests of lobject."""

from __future__ import annotations

import psycopg2
import pytest

C_LOBJECT = psycopg2._psycopg.lobject


@pytest.fixture
def lob(conn):
    """An empty large object, open for writing."""
    return conn.lobject()
