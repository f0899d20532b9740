"""The storm's operations, one function each: interrupts hit only what comes after its `yield`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import extensions as ext

import greenpg
from greenpg_conformance.harness.drivers import BOTH

from .table import Steps, operation
from .tasks import Companion, Holder

if TYPE_CHECKING:
    from .fixture import Fixture

ROWS: Final = 300
_counter = itertools.count(1)


@operation(drivers=BOTH)
def select(s: Fixture) -> Steps:
    yield
    s.echo()


@operation(drivers=BOTH)
def large_result(s: Fixture) -> Steps:
    cur = s.conn.cursor()
    yield
    cur.execute("select i, repeat('x', 1000) from generate_series(1, %s) i", (ROWS,))
    assert [row[0] for row in cur.fetchall()] == list(range(1, ROWS + 1))


@operation(drivers=BOTH)
def write(s: Fixture) -> Steps:
    yield
    s.write()


@operation(loose=True, drivers=BOTH)
def several_statements(s: Fixture) -> Steps:
    yield
    s.echo()
    s.write()
    s.echo()


@operation()
def executemany(s: Fixture) -> Steps:
    rows, auto = [s.row() for _ in range(5)], s.autocommit
    naps = [(row, 0, s.nap()) for row in rows]
    yield
    with s.ledger.inserting(rows, auto):
        s.conn.cursor().executemany(f"{s.insert}; select pg_sleep(%s)", naps)


@operation()
def callproc(s: Fixture) -> Steps:
    cur = s.conn.cursor()
    yield
    cur.callproc("pg_sleep", [s.nap()])
    assert cur.fetchall() == [("",)]


@operation(drivers=BOTH)
def failing(s: Fixture) -> Steps:
    yield
    try:
        s.conn.cursor().execute("select pg_sleep(%s), 1/0", (s.nap(),))
    except s.driver.error as error:
        if "division by zero" not in str(error):
            raise
    else:
        raise AssertionError("division by zero succeeded")


@operation(autocommit=False, drivers=BOTH)
def savepoint(s: Fixture) -> Steps:
    cur = s.conn.cursor()
    s.write(nap=0)
    cur.execute("savepoint storm")
    s.savepoint = s.row()
    yield
    s.write()


@operation(autocommit=False, drivers=BOTH)
def commit(s: Fixture) -> Steps:
    s.write(nap=0)
    s.write(nap=0)
    yield
    s.commit()


@operation(autocommit=False, drivers=BOTH)
def slow_commit(s: Fixture) -> Steps:
    s.write(nap=0)
    s.write(nap=0, commit_nap=s.nap())
    yield
    s.commit()


@operation(autocommit=False, drivers=BOTH)
def rollback(s: Fixture) -> Steps:
    s.write(nap=0)
    yield
    s.conn.rollback()


@operation(autocommit=False, loose=True)
def with_connection(s: Fixture) -> Steps:
    yield
    with s.conn:
        s.write()
        s.ledger.committing()
    s.ledger.committed()


@operation(loose=True, drivers=BOTH)
def write_and_commit(s: Fixture) -> Steps:
    yield
    s.write()
    s.commit()


@operation(fresh=True, settles=True)
def reset(s: Fixture) -> Steps:
    s.conn.cursor().execute("set greenpg.storm to 'before'")
    s.conn.commit()
    s.write(nap=0)
    s.settled = lambda: _shown(s, "greenpg.storm") in (None, "")
    yield
    s.conn.reset()


def _shown(s: Fixture, setting: str) -> Any:
    cur = s.conn.cursor()
    cur.execute("select current_setting(%s, true)", (setting,))
    return cur.fetchone()[0]


@operation(fresh=True, settles=True)
def set_client_encoding(s: Fixture) -> Steps:
    encoding = s.rng.choice(("UTF8", "LATIN1"))
    s.settled = lambda: s.conn.encoding == _shown(s, "client_encoding") == encoding
    yield
    s.conn.set_client_encoding(encoding)
    assert s.conn.encoding == encoding


@operation(fresh=True, settles=True)
def set_session(s: Fixture) -> Steps:
    level = s.rng.choice((ext.ISOLATION_LEVEL_SERIALIZABLE, ext.ISOLATION_LEVEL_READ_COMMITTED))
    name = "serializable" if level == ext.ISOLATION_LEVEL_SERIALIZABLE else "read committed"
    s.settled = lambda: _shown(s, "transaction_isolation") == name
    yield
    s.conn.set_session(isolation_level=level, deferrable=s.rng.choice((True, False)))
    assert s.conn.isolation_level == level


@operation()
def set_isolation_level(s: Fixture) -> Steps:
    yield
    s.conn.set_isolation_level(s.rng.choice((0, 1, 2, 3)))


@operation(fresh=True, loose=True)
def setters(s: Fixture) -> Steps:
    yield
    s.conn.isolation_level = s.rng.choice((1, 2, 3, None))
    s.conn.deferrable = s.rng.choice((True, False, None))
    s.conn.autocommit = not s.conn.autocommit


@operation()
def poll(s: Fixture) -> Steps:
    yield
    s.conn.poll()


def _two_phase(s: Fixture) -> Any:
    s.gid = f"{s.table}-{next(_counter)}"
    return s.conn.xid(0, s.gid, "")


@operation(fresh=True, autocommit=False, drivers=BOTH)
def tpc_begin(s: Fixture) -> Steps:
    xid = _two_phase(s)
    yield
    s.conn.tpc_begin(xid)


@operation(fresh=True, autocommit=False, loose=True, drivers=BOTH)
def tpc_write(s: Fixture) -> Steps:
    xid = _two_phase(s)
    yield
    s.conn.tpc_begin(xid)
    s.write()


@operation(fresh=True, autocommit=False, drivers=BOTH)
def tpc_prepare(s: Fixture) -> Steps:
    s.conn.tpc_begin(_two_phase(s))
    s.write(nap=0, commit_nap=s.nap())  # PREPARE runs what is deferred
    yield
    s.conn.tpc_prepare()


@operation(fresh=True, autocommit=False, drivers=BOTH)
def tpc_commit(s: Fixture) -> Steps:
    s.conn.tpc_begin(_two_phase(s))
    if s.rng.random() < 0.7:
        s.write(nap=0)
        s.conn.tpc_prepare()
    else:
        s.write(nap=0, commit_nap=s.nap())
    yield
    s.ledger.committing()
    s.conn.tpc_commit()
    s.ledger.committed()


@operation(fresh=True, autocommit=False, drivers=BOTH)
def tpc_rollback(s: Fixture) -> Steps:
    s.conn.tpc_begin(_two_phase(s))
    s.write(nap=0)
    if s.rng.random() < 0.7:
        s.conn.tpc_prepare()
    yield
    s.conn.tpc_rollback()


@operation(fresh=True, loose=True, drivers=BOTH)
def tpc_recover(s: Fixture) -> Steps:
    yield
    s.conn.tpc_recover()


def _name() -> str:
    return f"storm_{next(_counter)}"


def _declared(s: Fixture) -> Any:
    cur = s.conn.cursor(_name(), withhold=s.autocommit, scrollable=True)
    cur.itersize = 20
    cur.execute("select i from generate_series(1, %s) i", (ROWS,))
    return cur


@operation(drivers=BOTH)
def declare(s: Fixture) -> Steps:
    cur = s.conn.cursor(_name(), withhold=s.autocommit)
    yield
    cur.execute("select 1, pg_sleep(%s)", (s.nap(),))


@operation(drivers=BOTH)
def fetch(s: Fixture) -> Steps:
    cur = _declared(s)
    how = s.rng.choice(("fetchone", "fetchmany", "fetchall"))
    yield
    found = getattr(cur, how)()
    assert (found if how == "fetchone" else found[0]) == (1,), f"{how} returned {found!r}"


@operation(loose=True, drivers=BOTH)
def iterate(s: Fixture) -> Steps:
    cur = _declared(s)
    yield
    assert [row[0] for row in cur] == list(range(1, ROWS + 1))


@operation(loose=True, drivers=BOTH)
def scroll(s: Fixture) -> Steps:
    cur = _declared(s)
    yield
    cur.scroll(10)
    assert cur.fetchone() == (11,)


@operation(drivers=BOTH)
def close_named(s: Fixture) -> Steps:
    cur = _declared(s)
    yield
    cur.close()


@operation(loose=True, drivers=BOTH)
def exclusive(s: Fixture) -> Steps:
    yield
    with s.conn.exclusive():
        s.echo(nap=0)
        with s.conn.exclusive():
            s.echo()


@operation(lax=True, autocommit=True, drivers=BOTH)
def wait_for_the_lock(s: Fixture) -> Steps:
    s.jobs.append(Holder(s))
    yield
    s.echo(nap=0)


@operation(autocommit=True, drivers=BOTH)
def share(s: Fixture) -> Steps:
    s.jobs += [Companion(s), Companion(s)]
    yield
    s.echo()


@operation(autocommit=True, loose=True, drivers=BOTH)
def share_in_turn(s: Fixture) -> Steps:
    s.jobs += [Companion(s), Companion(s)]
    yield
    for _ in range(5):
        s.echo(nap=0.001)


@operation(elsewhere=True, drivers=BOTH)
def connect(s: Fixture) -> Steps:
    yield
    s.others.append(s.connected())


@operation(elsewhere=True, drivers=BOTH)
def open_and_close(s: Fixture) -> Steps:
    yield
    conn = s.connected()
    try:
        s.echo(conn)
    finally:
        conn.close()


@operation(elsewhere=True)
def plain(s: Fixture) -> Steps:
    conn = s.plain()
    yield
    s.echo(conn)


@operation(elsewhere=True, loose=True)
def asynchronous(s: Fixture) -> Steps:
    yield
    conn = s.another(async_=True)
    greenpg.wait(conn)
    cur = conn.cursor()
    cur.execute("select pg_sleep(0.01)")
    greenpg.wait(conn)
    assert cur.fetchall() == [("",)]
