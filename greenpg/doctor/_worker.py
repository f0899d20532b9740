"""The child process that examines one part: the server, a backend, or a program."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeAlias

import psycopg2
from psycopg2.extensions import make_dsn

import greenpg
from greenpg._connecting.connect import is_hooked
from greenpg._psycopg2.conninfo import CONNINFO
from greenpg._session.connect_plan import plan
from greenpg.backend import chosen
from greenpg.errors import BackendError
from greenpg.patch import patcher
from greenpg_conformance.harness.describe import find

from ._drivers import recorded
from ._live import Live
from ._process import here, is_testable, ticking_backend
from ._server import server
from .rows import Row, unquoted

CONNECT_SECONDS: Final = 5  # if the connection string sets no connect_timeout
Orders: TypeAlias = Mapping[str, Any]


def main() -> None:
    """Carry out the orders on standard input; write one row per line to the given descriptor."""
    orders = json.loads(sys.stdin.readline())
    faulthandler.dump_traceback_later(orders["limit"], exit=True)
    out = int(sys.argv[1])

    examined = _program if "app" in orders else _backend if "backend" in orders else _server

    def work() -> None:
        for row in examined(orders):
            os.write(out, json.dumps(row.as_json()).encode() + b"\n")

    if "backend" in orders:
        find(orders["backend"])[1].run(work)
    else:
        work()
    os._exit(0)  # threads that the program has started must not delay the end


def _dsn(text: str) -> str:
    extra = {} if plan(text, CONNINFO).timeout else {"connect_timeout": CONNECT_SECONDS}
    return make_dsn(text, fallback_application_name="greenpg doctor", **extra)


def _server(orders: Orders) -> Iterator[Row]:
    try:
        yield from server(partial(greenpg.connect, _dsn(orders["dsn"]), backend="threads"))
    except psycopg2.Error as err:
        fact = "; ".join(" ".join(line.split()) for line in str(err).strip().splitlines())
        remedy = "make `psql` work with the same connection string first"
        yield Row("server", "PostgreSQL", "bad", fact, remedy)


def _backend(orders: Orders) -> Iterator[Row]:
    which = orders["backend"]
    backend, description = find(which)
    patcher(backend)[0]()
    for title, fact in description.facts().items():
        yield Row(which, title, "fact", fact)
    live = Live(which, backend, f"run greenpg conformance {which} to see which rule is broken")
    yield from _live(live, orders, psycopg2.connect)


def _program(orders: Orders) -> Iterator[Row]:
    name = orders["app"].partition(":")[0]
    try:
        with recorded():
            import_module(name)
    except BaseException as err:  # even SystemExit: the other rows are still useful
        fact = unquoted(f"{type(err).__name__}: {err}")
        yield Row("program", "import", "bad", fact, f"python -c 'import {name}' must work")
    else:
        yield Row("program", "import", "good", name)
    yield from here()
    with suppress(BackendError):  # reported in a row of its own
        if is_testable():
            live = Live("program", ticking_backend(), "the bad rows above, or a call that blocks")
            is_psycopg2s = is_hooked() or chosen() is None  # as far as can be seen
            yield from _live(live, orders, psycopg2.connect if is_psycopg2s else greenpg.connect)


def _live(live: Live, orders: Orders, connect: Callable[..., Any]) -> Iterator[Row]:
    if orders["dsn"] is not None:
        yield from live.names(orders["dsn"])
    if orders["reachable"]:
        yield from live.server(partial(connect, _dsn(orders["dsn"])))
