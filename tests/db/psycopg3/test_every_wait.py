"""An interrupt at any wait of any operation: it propagates, and the connection lives."""

from __future__ import annotations

import itertools
from contextlib import suppress

import psycopg
import pytest
from psycopg.pq import PipelineStatus, TransactionStatus

LONG = "select pg_sleep(600)"
NUMBERS = "select generate_series(1, 300)"


class Interrupted(BaseException):
    """As a Timeout or a kill."""


def calm(conn):
    """Interrupt no more."""
    conn._greenpg_state.wait = conn._greenpg_state.waiter.wait


def interrupt(conn, *numbers):
    """Interrupt the connection's waits of these numbers; return the errors that were raised."""
    raised: list[Interrupted] = []
    state, waits = conn._greenpg_state, itertools.count(1)
    wait = state.waiter.wait

    def counted(fd, events, timeout):
        if (number := next(waits)) in numbers:
            raised.append(Interrupted(number))
            raise raised[-1]
        return wait(fd, events, timeout)

    state.wait = counted
    return raised


def execute(conn):
    conn.execute("select 1 from pg_sleep(0.01)")


def prepared(conn):
    for _ in range(3):
        conn.execute("select %s from pg_sleep(0)", (1,), prepare=True)


def forgets_prepared(conn):
    conn.prepared_max = 1
    for number in range(3):
        conn.execute(f"select {number}", prepare=True)


def client_cursor(conn):
    psycopg.ClientCursor(conn).execute("select %s from pg_sleep(0.01)", (1,))


def raw_server_cursor(conn):
    conn.server_cursor_factory = psycopg.RawServerCursor
    with conn.cursor("raw", withhold=True) as cur:
        cur.execute("select $1::int from generate_series(1, 10)", (1,))
        cur.itersize = 3
        assert len(list(cur)) == 10


def server_cursor(conn):
    with conn.cursor("named", scrollable=True, withhold=True) as cur:
        cur.execute(NUMBERS)
        cur.scroll(10)
        assert cur.fetchone() == (11,)
        assert len(cur.fetchall()) == 289


def commit(conn):
    conn.execute("select 1")
    conn.commit()


def rollback(conn):
    conn.execute("select 1")
    conn.rollback()


def transaction(conn):
    with conn.transaction():
        conn.execute("select 1")


def nested_transactions(conn):
    with conn.transaction(), conn.transaction():
        conn.execute("select 1")


def transaction_undone(conn):
    with suppress(ZeroDivisionError), conn.transaction():
        conn.execute("select 1")
        raise ZeroDivisionError


def empty_pipeline(conn):
    with conn.pipeline():
        pass


def pipeline(conn):
    with conn.pipeline() as pipe:
        first = conn.execute("select 1")
        conn.execute("select 2", prepare=True)
        pipe.sync()
        second = conn.execute("select 3")
        assert (second.fetchone(), first.fetchone()) == ((3,), (1,))


def transaction_in_a_pipeline(conn):
    with conn.pipeline(), conn.transaction():
        cur = conn.execute("select 1")
        with conn.pipeline():
            conn.execute("select 2")
        assert cur.fetchone() == (1,)


def pipeline_in_a_transaction(conn):
    with conn.transaction(), conn.pipeline():
        conn.execute("select 1")


def executemany(conn):
    conn.cursor().executemany("select %s", [(number,) for number in range(5)], returning=True)


def executemany_in_a_pipeline(conn):
    with conn.pipeline():
        conn.cursor().executemany("select %s", [(number,) for number in range(5)])


def stream(conn):
    assert len(list(conn.cursor().stream(NUMBERS))) == 300


def copy_out(conn):
    with conn.cursor().copy(f"copy ({NUMBERS}) to stdout") as copy:
        assert len(list(copy.rows())) == 300


def copy_in(conn):
    conn.execute("create temp table if not exists rows (text text)")
    with conn.cursor().copy("copy rows from stdin") as copy:
        for _ in range(100):
            copy.write_row(("x" * 1000,))


def notifies(conn):
    conn.execute("listen channel")
    conn.execute("notify channel")
    conn.commit()
    assert list(conn.notifies(timeout=0.05, stop_after=1))


def two_phase(conn):
    conn.tpc_begin(conn.xid(0, "greenpg-every-wait", ""))
    conn.execute("select 1")
    conn.tpc_prepare()
    conn.tpc_rollback()


OPERATIONS = [
    execute, prepared, forgets_prepared, client_cursor, server_cursor, raw_server_cursor, commit,
    rollback, transaction, nested_transactions, transaction_undone, empty_pipeline, pipeline,
    transaction_in_a_pipeline, pipeline_in_a_transaction, executemany, executemany_in_a_pipeline,
    stream, copy_out, copy_in, notifies,
]  # fmt: skip


def check_at_rest(conn):
    assert not conn.closed
    assert conn.pgconn.pipeline_status == PipelineStatus.OFF
    assert conn.info.transaction_status != TransactionStatus.ACTIVE
    assert conn._pipeline is None
    assert not conn._num_transactions


def check_usable(conn):
    check_at_rest(conn)
    calm(conn)
    for _ in range(2):
        assert conn.execute("select 6 * %s", (7,), prepare=True).fetchone() == (42,)


@pytest.mark.parametrize("again", [0, 1, 2, 3])  # waits later: in the clean-up
@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupt_at_any_wait_leaves_the_connection(connect, operation, autocommit, again):
    conn = connect(autocommit=autocommit)
    for number in range(1, 60):
        raised = interrupt(conn, number, number + again)

        error = None
        try:
            operation(conn)
        except Interrupted as interrupted:
            error = interrupted

        assert error is (raised[-1] if raised else None), f"at wait {number}: {error!r}"
        calm(conn)
        check_at_rest(conn)
        conn.rollback()
        check_usable(conn)
        conn.rollback()
        if not raised:
            break
    else:
        pytest.fail("it waits without end")


@pytest.mark.parametrize("number", range(1, 5))
def test_interrupt_at_any_wait_of_a_two_phase_transaction(conn, number):
    raised = interrupt(conn, number)

    with pytest.raises(Interrupted):
        two_phase(conn)

    assert raised
    calm(conn)
    with suppress(psycopg.ProgrammingError):  # it was over, or had not begun
        conn.tpc_rollback()
    check_usable(conn)
    assert "greenpg-every-wait" not in [xid.gtrid for xid in conn.tpc_recover()]


@pytest.mark.parametrize("autocommit", [True, False])
def test_statement_interrupted_before_it_was_sent_is_never_sent(connect, autocommit):
    conn = connect(autocommit=autocommit)
    if not autocommit:
        conn.execute("select 1")

    def block():
        with conn.pipeline():
            interrupt(conn, 1)
            conn.execute(LONG)

    with pytest.raises(Interrupted):
        block()

    conn.rollback()
    check_usable(conn)


def test_interrupted_wait_that_the_program_calls_by_itself(auto, observer):
    auto.pgconn.send_query(LONG.encode())
    interrupt(auto, 1)

    with pytest.raises(Interrupted):
        auto.wait(psycopg.generators.execute(auto.pgconn))

    assert not observer.is_busy(auto.info.backend_pid)
    check_usable(auto)


def test_interrupted_begin_is_not_followed_by_the_statement(conn, observer):
    interrupt(conn, 1)

    with pytest.raises(Interrupted):
        conn.execute(LONG)

    query = "select query from pg_stat_activity where pid = %s"
    assert observer.ask(query, conn.info.backend_pid) == [("BEGIN",)]


def test_interrupted_executemany_asks_for_no_more_rows(auto):
    asked = itertools.count()
    interrupt(auto, 5)

    with pytest.raises(Interrupted):
        auto.cursor().executemany("select %s", ((number,) for number in asked))

    assert next(asked) < 20
    check_usable(auto)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("autocommit", [True, False])
def test_a_pipelines_statement_is_cancelled_or_never_sent(connect, autocommit, number):
    conn = connect(autocommit=autocommit)
    cur = conn.cursor()

    def block():
        with conn.pipeline():
            interrupt(conn, number)
            with suppress(Interrupted):
                cur.execute("select pg_sleep(2)")
                cur.fetchone()
            calm(conn)

    with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="interrupted"):
        block()

    assert cur.pgresult is None or cur.pgresult.error_message, "it ran to its end"
    conn.rollback()
    check_usable(conn)
