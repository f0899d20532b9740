"""A Flask application on a greenpg pool that is made at import."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

from flask import Flask
from psycopg2.extensions import make_dsn
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from greenpg.monitor import Monitor
from greenpg_gevent import ConnectionPool

from .marks import marked, spent


def conninfo() -> str:
    """Return a DSN that names sessions after their process; the test counts them by name."""
    return make_dsn(
        os.environ["APP_DSN"],
        application_name=f"{os.environ['APP_NAME']}-{os.getpid()}",
        options="-c client_connection_check_interval=1s",
    )


pool = ConnectionPool(conninfo, min_size=4, max_size=20)
flask = Flask(__name__)
mounted = DispatcherMiddleware(flask.wsgi_app, {"/ops": Monitor()})
flask.wsgi_app = mounted  # type: ignore[method-assign]  # as in Flask's manual


@flask.get("/quick")
def quick() -> dict[str, Any]:
    return {"pid": os.getpid(), **spent()}


@flask.get("/sleep/<seconds>")
def sleep(seconds: str) -> dict[str, Any]:
    began = monotonic()
    with pool.connection() as conn, conn.cursor() as cur:
        got = monotonic()
        cur.execute("select pg_sleep(%s)", (float(seconds),))
    return {"pid": os.getpid(), "began": began, "got": got}


if "APP_USED_EARLY" in os.environ:
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select 1")

app = marked(flask)
