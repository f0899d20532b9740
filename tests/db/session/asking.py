"""What the tests of interrupts ask the server."""

from __future__ import annotations


def one(conn, query="select 1"):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def stored(connect, table):
    cur = connect().cursor()
    cur.execute(f"select n from {table} order by n")
    return [row[0] for row in cur.fetchall()]
