"""Connections that come back to the pool while a task keeps their lock, or their pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import exc

from greenpg._protocol.pipelining import has_pipelines
from greenpg.backend import current
from tests.db.conftest import until

from .conftest import ask, pid


@pytest.fixture
def kept(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """A list for what tasks leave open; emptied after the test."""
    found: list[Any] = []
    yield found
    found.clear()
    caplog.get_records("call").clear()  # whose tracebacks refer to connections


@pytest.fixture
def engine(make):
    return make(pool_size=1, max_overflow=0, pool_timeout=15)


def exclusive(raw, kept):
    kept.append(raw.exclusive())
    kept[0].__enter__()


def listen(raw, kept):
    kept.append(raw.listen("greenpg_kept"))


def pipeline(raw, kept):
    kept.append(raw.pipeline())
    block = kept[0].__enter__()
    (block if hasattr(block, "execute") else raw).execute("select 1")


def copy(raw, kept):
    kept.append(raw.cursor().copy("copy (select generate_series(1, 9999)) to stdout"))
    kept[0].__enter__()


KEEPERS = pytest.mark.parametrize("keep", [exclusive, listen, pipeline, copy])


def gone(engine, left):
    query = f"select count(*) from pg_stat_activity where pid = {left}"
    with engine.connect() as conn:
        return ask(conn, query) == 0


@KEEPERS
@pytest.mark.parametrize("way", ["connect", "raw_connection"])
def test_what_a_task_keeps_is_replaced(engine, spawn, kept, keep, way):
    if keep is pipeline and not has_pipelines():
        pytest.skip("libpq has no pipeline mode")
    if keep is listen and engine.driver == "greenpg3":
        pytest.skip("psycopg 3's notifies() keeps the connection while it waits, not longer")

    def leave():
        if way == "raw_connection":
            back = proxied = engine.raw_connection()
        else:
            back = engine.connect()
            proxied = back.connection
        keep(proxied.driver_connection, kept)
        left = proxied.driver_connection.info.backend_pid
        back.close()
        return left

    left = spawn(leave).result()

    with engine.connect() as conn:
        assert ask(conn, "select 6 * 7") == 42
    until(lambda: gone(engine, left), "the session has ended")
    assert engine.pool.checkedout() == 0


def test_a_rollback_waits_for_another_task_a_bounded_time(engine, spawn, monkeypatch):
    monkeypatch.setattr("greenpg.sqlalchemy._rules.ROLLBACK_SECONDS", 0.05)
    entered, go = current().event(), current().event()

    def hold(raw):
        with raw.exclusive():
            entered.set()
            go.wait(20)

    def leave():
        with engine.connect() as conn:
            ask(conn)
            job = spawn(hold, conn.connection.driver_connection)
            entered.wait(5)
        return job

    with pytest.raises(exc.OperationalError, match="cannot be rolled back"):
        spawn(leave).result()

    assert engine.pool.checkedout() == 0
    with engine.connect() as conn:
        assert ask(conn, "select 6 * 7") == 42
    go.set()


def test_a_rollback_does_not_wait_for_a_task_that_has_ended(engine, spawn):
    def leave():
        with engine.connect() as conn:
            ask(conn)
            spawn(conn.connection.driver_connection.exclusive().__enter__).result()

    with pytest.raises(exc.OperationalError, match="has ended inside a block"):
        spawn(leave).result()

    assert engine.pool.checkedout() == 0
    with engine.connect() as conn:
        assert ask(conn, "select 6 * 7") == 42


def test_a_block_around_a_transaction_changes_nothing(engine, create):
    table = create("(n int primary key deferrable initially deferred)")

    with engine.connect() as conn:
        before = pid(conn)
        with conn.connection.driver_connection.exclusive():
            conn.exec_driver_sql(f"insert into {table} values (1), (1)")
            with pytest.raises(exc.IntegrityError):
                conn.commit()

    with engine.connect() as conn:
        assert pid(conn) == before
