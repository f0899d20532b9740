"""Tasks that share one pool, written as in a program."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from psycopg2.extensions import make_dsn

import greenpg
from greenpg.celery import TaskConnection

from .settings import application

app = application(Path(os.environ["APP_FOLDER"]))
greenpg.use(os.environ["APP_BACKEND"])
pool = greenpg.ConnectionPool(
    make_dsn(
        os.environ["APP_DSN"],
        application_name=os.environ["APP_NAME"],
        options="-c client_connection_check_interval=1s",
    ),
    min_size=1,
    max_size=4,
)
db = TaskConnection(pool)


@app.task
def query(seconds: float) -> int:
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select pg_sleep(%s), 42", (seconds,))
        return int(cur.fetchall()[0][1])


@app.task
def fail() -> None:
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("create temp table never_committed ()")
        raise ValueError("the task fails")


@app.task
def bounded(seconds: float) -> None:
    with pool.connection() as conn, conn.deadline(seconds), conn.cursor() as cur:
        cur.execute("select pg_sleep(300)")


@app.task
def forget() -> int:
    """Borrow a connection and do not return it."""
    cur = pool.getconn().cursor()
    cur.execute("select 42")
    return int(cur.fetchall()[0][0])


@app.task
def scoped(how: str) -> int:
    with db().cursor() as cur:
        cur.execute("create temp table never_committed ()")
    if how == "failing":
        raise ValueError("the task fails")
    with db().cursor() as cur:
        cur.execute("select pg_sleep(%s), 42", (300 if how == "endless" else 0,))
        return int(cur.fetchall()[0][1])


@app.task
def collect() -> None:
    gc.collect()


@app.task
def state() -> dict[str, Any]:
    return pool.get_stats()
