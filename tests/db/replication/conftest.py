"""Fixtures and helpers of the tests of replication."""

from __future__ import annotations

import itertools
import os
import struct
from contextlib import closing

import pytest

import greenpg
from tests.db.conftest import until

PLUGIN = "pgoutput"  # every server has it; psycopg2's own suite runs on test_decoding


_numbers = itertools.count()


def inserted(message):
    """The one text column of an inserted row, None for a message of another kind."""
    payload = message.payload
    if payload[:1] != b"I":
        return None
    (size,) = struct.unpack_from(">I", payload, 9)
    return payload[13 : 13 + size].decode()


class Source:
    """A table, whose changes a logical slot keeps."""

    def __init__(self, conn, schema):
        self.slot = f"greenpg_{os.getpid()}_{next(_numbers)}"
        self.options = {"proto_version": 1, "publication_names": self.slot}
        self._table = f"{schema}.{self.slot}"
        self._conn = conn
        self.ask(f"create table {self._table} (x text)")
        self.ask(f"create publication {self.slot} for table {self._table}")
        self.ask("select pg_create_logical_replication_slot(%s, %s)", self.slot, PLUGIN)

    def ask(self, query, *args):
        with self._conn.cursor() as cur:
            cur.execute(query, args)
            return cur.fetchone() if cur.description else None

    def insert(self, *rows):
        for row in rows:
            self.ask(f"insert into {self._table} values (%s)", row)

    def flush(self):
        """Write some WAL that is in no stream.

        A walsender (PostgreSQL 16 and later, walsender.c) checks for new WAL before it registers
        to be woken: a commit in between, right after feedback, is sent only after a later one.
        """
        self.ask("select pg_logical_emit_message(true, 'greenpg', '')")

    def fact(self, column, view="pg_replication_slots"):
        """A column of a server view for the slot or its walsender."""
        if view == "pg_stat_replication":
            query = f"""
                select {column} from pg_replication_slots
                join pg_stat_replication on active_pid = pid where slot_name = %s
            """
        else:
            query = f"select {column} from {view} where slot_name = %s"
        row = self.ask(query, self.slot)
        return row and row[0]

    def drop(self):
        until(lambda: self.fact("active") is not True, "the slot is free")
        self.ask(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where slot_name = %s",
            self.slot,
        )
        self.ask(f"drop publication {self.slot}")
        self.ask(f"drop table {self._table}")


@pytest.fixture
def source(dsn, schema):
    with closing(greenpg.connect(dsn)) as conn:
        conn.autocommit = True
        made = Source(conn, schema)
        yield made
        made.drop()
