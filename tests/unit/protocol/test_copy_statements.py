"""Which statements move data between the server and the client."""

import pytest

from greenpg._protocol.copy_statements import copies_to_client


@pytest.mark.parametrize(
    "statement",
    [
        b"copy t from stdin",
        b"COPY t (a, b) TO STDOUT WITH (FORMAT csv)",
        b"copy (select 1) to\n\tstdout",
        b"-- some\n /* more * of it */ copy t from stdin",
        b"copy t from /* here */ stdin",
        b"copy t from -- here\n stdin",
        b"copy binary t from stdout",
    ],
)
def test_copies_of_the_client(statement):
    assert copies_to_client(statement)


@pytest.mark.parametrize(
    "statement",
    [
        b"",
        b"select 'copy t from stdin'",
        b"-- copy t from stdin\nselect 1",
        b"copy t from '/tmp/file'",
        b"copy t to program 'cat'",
        b"copy (select 'to stdout') to '/tmp/it''s from stdin'",
        b"copy \"t from stdin\" to '/tmp/file'",
        b"copyright t from stdin",
        b"insert into t select * from stdin",
    ],
)
def test_other_statements(statement):
    assert not copies_to_client(statement)
