"""Which statements are rollbacks, so that a doomed transaction accepts them."""

import pytest

from greenpg._psycopg2.rollback_statements import is_rollback


@pytest.mark.parametrize(
    "statement",
    [
        "rollback",
        "ROLLBACK;",
        "  \n\t Rollback work",
        "abort",
        "ABORT TRANSACTION",
        "rollback to savepoint here",
        "rollback to here",
        "rollback and chain",
        "-- first\nrollback",
        "--\n--\n rollback",
        "/* why */rollback",
        "/* one */ /* two\nlines */\nabort",
        "/**/rollback",
        b"rollback",
        b" /* bytes */ rollback to here",
        b"\xff\xfe rollback"[2:],
    ],
)
def test_statement_that_rolls_back_is_known(statement):
    assert is_rollback(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "select 1",
        "commit",
        "select 'rollback'",
        "-- rollback",
        "-- rollback\nselect 1",
        "/* rollback */ select 1",
        "rollbacks",
        "rollback_table",
        "abortive",
        "savepoint rollback",
        b"commit",
        b"\xff rollback",
        None,
        5,
        object(),
    ],
)
def test_other_statement_is_none(statement):
    assert not is_rollback(statement)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("padding", ["/*" * 20_000, " " * 50_000, "--\n" * 20_000, "/**/" * 20_000])
def test_long_statement_is_judged_quickly(padding):
    assert not is_rollback(padding + "select 1")
