"""COPY in a pipeline block: libpq cannot run it there."""

# ruff: noqa: PT012 - an error raised at a block's end requires the block

from __future__ import annotations

import psycopg2
import pytest

from greenpg.pipeline import _pipeline


@pytest.mark.parametrize("copy", ["copy (select %s) to stdout", "copy pg_class from stdin"])
def test_copy_is_refused_before_it_is_sent(conn, copy):
    with conn.pipeline() as p:
        with pytest.raises(psycopg2.ProgrammingError, match=r"use cursor\.copy\(\) outside"):
            p.execute(copy, (1,) if "%s" in copy else None)

        assert p.execute("select 1").fetchone() == (1,)

    with conn.cursor() as cur:
        cur.execute("select 1")
        assert cur.fetchone() == (1,)


@pytest.mark.parametrize("end", ["read", "unread"])
def test_copy_that_was_not_seen_closes_the_connection(conn, monkeypatch, end):
    monkeypatch.setattr(_pipeline, "copies_to_client", lambda _: False)

    with pytest.raises(psycopg2.OperationalError, match="COPY"), conn.pipeline() as p:
        result = p.execute("copy (select 1) to stdout")
        if end == "read":
            result.fetchone()

    assert conn.closed


def test_copy_of_a_file_of_the_server_is_run(auto):
    with auto.pipeline() as p:
        copied = p.execute("copy (select 'to stdout') to program 'cat > /dev/null'")

        assert (copied.rowcount, copied.statusmessage) == (1, "COPY 1")
