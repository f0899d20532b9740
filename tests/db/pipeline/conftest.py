"""Fixtures and helpers of the tests of pipeline."""

from __future__ import annotations

import datetime as dt

import psycopg2.extensions as ext

ZONE = dt.timezone(dt.timedelta(hours=5, minutes=45))


def outcome(conn, rows_of, query, rows, table=None):
    """Return all that a program can see of an executemany: in the cursor and in the table."""
    cur = conn.cursor()
    try:
        cur.executemany(query, rows_of(rows))
        raised = None
    except Exception as err:
        raised = (type(err), str(err), getattr(err, "pgcode", None))
    seen = (raised, cur.rowcount, cur.statusmessage, cur.query, cur.description)
    status = conn.info.transaction_status, conn.status
    if raised is not None and status[0] == ext.TRANSACTION_STATUS_INERROR:
        conn.cursor().execute("rollback")
    held = contents(conn, table) if table else None
    return seen, status, held


def contents(conn, table):
    cur = conn.cursor()
    cur.execute(f"select * from {table} order by ctid")
    return [tuple(map(shown, row)) for row in cur.fetchall()]


def shown(value):
    return bytes(value) if isinstance(value, memoryview) else repr(value)
