"""The operations of a connection, as a table from which tests make pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from psycopg2 import extensions as ext

import greenpg

from .drivers import PSYCOPG2, Driver

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Stage:
    """A connection with a cursor that has rows and a server-side cursor that is open."""

    conn: Any
    rows: Any
    named: Any

    @classmethod
    def prepared(cls, conn: Any, began: bool) -> Stage:
        """Set a stage; the connection is inside a transaction if it `began` one."""
        rows = conn.cursor()
        rows.execute("select generate_series(1, 3)")
        named = conn.cursor(f"named_{next(_numbers)}", withhold=not began)
        named.execute("select generate_series(1, 30)")
        if not began:
            conn.commit()
        return cls(conn, rows, named)


def _asked(cur: Any, run: Callable[..., object], *args: Any) -> None:
    number = next(_numbers)
    run("select %s::text as answer", *[(str(number),), *args])
    answer = cur.fetchall()
    assert answer == [(str(number),)], f"asked for {number}, got {answer}"


def _execute(stage: Stage) -> None:
    cur = stage.conn.cursor()
    _asked(cur, cur.execute)


def _cursor_of_extensions(stage: Stage) -> None:
    cur = greenpg.extensions.cursor(stage.conn)
    _asked(cur, cur.execute)


def _executemany(stage: Stage) -> None:
    stage.conn.cursor().executemany("select %s", [(1,), (2,), (3,)])


def _callproc(stage: Stage) -> None:
    number = next(_numbers)
    cur = stage.conn.cursor()
    cur.callproc("to_char", (number, "9999999"))
    assert int(cur.fetchall()[0][0]) == number


def _with_conn(stage: Stage) -> None:
    with stage.conn, stage.conn.cursor() as cur:
        _asked(cur, cur.execute)


def _autocommit(stage: Stage) -> None:
    stage.conn.autocommit = True


def _isolation_level(stage: Stage) -> None:
    stage.conn.isolation_level = ext.ISOLATION_LEVEL_SERIALIZABLE


def _tpc_begin(stage: Stage) -> None:
    stage.conn.tpc_begin(_xid(stage.conn))
    stage.conn.tpc_rollback()


def _tpc_prepare(stage: Stage) -> None:
    stage.conn.tpc_begin(_xid(stage.conn))
    _execute(stage)
    stage.conn.tpc_prepare()
    stage.conn.tpc_rollback()


def _tpc_commit(stage: Stage) -> None:
    stage.conn.tpc_begin(_xid(stage.conn))
    stage.conn.tpc_commit()


def _xid(conn: Any) -> str:
    return f"{conn.info.parameter_status('application_name')}_{next(_numbers)}"


def _named(stage: Stage) -> None:
    with stage.conn.cursor(f"named_{next(_numbers)}") as cur:
        cur.execute("select generate_series(1, 3)")
        assert cur.fetchall() == [(1,), (2,), (3,)]


OPERATIONS: Final[dict[str, Callable[[Stage], object]]] = {
    "execute": _execute,
    "executemany": _executemany,
    "callproc": _callproc,
    "commit": lambda stage: stage.conn.commit(),
    "rollback": lambda stage: stage.conn.rollback(),
    "with conn": _with_conn,
    "close": lambda stage: stage.conn.close(),
    "reset": lambda stage: stage.conn.reset(),
    "set_client_encoding": lambda stage: stage.conn.set_client_encoding("LATIN1"),
    "set_session": lambda stage: stage.conn.set_session(readonly=True),
    "set_isolation_level": lambda stage: stage.conn.set_isolation_level(1),
    "autocommit": _autocommit,
    "isolation_level": _isolation_level,
    "tpc_begin": _tpc_begin,
    "tpc_prepare": _tpc_prepare,
    "tpc_commit": _tpc_commit,
    "tpc_recover": lambda stage: stage.conn.tpc_recover(),
    "poll": lambda stage: stage.conn.poll(),
    "cancel": lambda stage: stage.conn.cancel(),
    "fetch": lambda stage: stage.rows.fetchone(),
    "cursor close": lambda stage: stage.rows.close(),
    "named": _named,
    "named fetchone": lambda stage: stage.named.fetchone(),
    "named fetchall": lambda stage: stage.named.fetchall(),
    "named iteration": lambda stage: list(stage.named),
    "named close": lambda stage: stage.named.close(),
    "extensions.cursor": _cursor_of_extensions,
}


def _transaction(stage: Stage) -> None:
    with stage.conn.exclusive(), stage.conn.transaction():
        _execute(stage)


def _pipeline(stage: Stage) -> None:
    with stage.conn.exclusive(), stage.conn.pipeline():
        _execute(stage)


def _copy(stage: Stage) -> None:
    with stage.conn.cursor().copy("copy (select 7) to stdout") as copy:
        assert list(copy.rows()) == [("7",)]


_COMMON: Final = (
    "execute", "executemany", "commit", "rollback", "close", "autocommit", "tpc_begin",
    "tpc_prepare", "tpc_commit", "tpc_recover", "cancel", "fetch", "cursor close", "named",
    "named fetchone", "named fetchall", "named iteration", "named close",
)  # fmt: skip
OF_PSYCOPG: Final[dict[str, Callable[[Stage], object]]] = {
    **{name: OPERATIONS[name] for name in _COMMON},
    "transaction": _transaction,
    "pipeline": _pipeline,
    "copy": _copy,
    "stream": lambda stage: list(stage.conn.cursor().stream("select generate_series(1, 3)")),
    "notifies": lambda stage: list(stage.conn.notifies(timeout=0)),
}


def operations(driver: Driver) -> dict[str, Callable[[Stage], object]]:
    """Return the operations of a driver's connections."""
    return OPERATIONS if driver is PSYCOPG2 else OF_PSYCOPG
