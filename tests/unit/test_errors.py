"""What greenpg.errors has besides the classes."""

import psycopg.errors
import psycopg2.errors
import pytest

from greenpg.errors import sqlstate_of


def psycopg2s():
    error = psycopg2.errors.UniqueViolation("twice")
    error.__setstate__({"pgerror": "twice", "pgcode": "23505"})
    return error


@pytest.mark.parametrize("error", [psycopg2s(), psycopg.errors.UniqueViolation("twice")])
def test_sqlstate_is_the_drivers(error):
    assert sqlstate_of(error) == "23505"


@pytest.mark.parametrize("error", [psycopg2.OperationalError(), KeyError(), KeyboardInterrupt()])
def test_other_errors_have_no_sqlstate(error):
    assert sqlstate_of(error) is None
