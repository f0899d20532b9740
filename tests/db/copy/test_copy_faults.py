"""Errors in COPY, and other uses of the connection meanwhile."""

from __future__ import annotations

import gc
import io
import sys
import weakref

import psycopg2
import pytest

import greenpg
from greenpg._protocol.libpq import libpq
from greenpg.backend import current
from tests.db.copy.conftest import Reader, Writer, failing, lines, table


def test_bad_row_is_the_servers_error_and_loads_nothing(db, conn, cur):
    conn.commit()
    content = lines(1000) + "x\tbad\n" + lines(1000)

    with pytest.raises(db.errors.InvalidTextRepresentation) as caught:
        cur.copy_from(io.StringIO(content), "t")

    assert isinstance(caught.value, db.DataError)
    assert caught.value.pgcode == caught.value.diag.sqlstate == "22P02"
    assert caught.value.diag.context.startswith("COPY t, line 1001, column id")
    assert cur.rowcount == -1
    conn.rollback()
    assert table(cur) == []


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("copy no_such_table from stdin", "UndefinedTable"),
        ("copy t (no_such_column) to stdout", "UndefinedColumn"),
        ("copy t from stdin nonsense", "SyntaxError"),
        ("copy (select 1/(id-1) from t) to stdout", "DivisionByZero"),
        ("copy (insert into t values (1) returning 1) to stdout", "UniqueViolation"),
    ],
)
def test_errors_have_psycopg2s_classes(db, conn, cur, statement, error):
    cur.execute("insert into t values (1)")

    with pytest.raises(getattr(db.errors, error)) as caught:
        cur.copy_expert(statement, io.StringIO())

    assert caught.value.diag.message_primary in str(caught.value)
    assert caught.value.cursor is cur


def test_error_half_way_through_a_copy_to(db, conn, cur):
    file = io.StringIO()

    with pytest.raises(db.errors.DivisionByZero):
        cur.copy_expert(
            "copy (select 1/(90000-n) from generate_series(1, 99999) n) to stdout", file
        )

    assert file.getvalue().startswith("0\n0\n")
    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


def test_error_of_the_files_read_is_the_cause_of_the_servers(db, conn, cur):
    broken = ZeroDivisionError("a broken file")

    with pytest.raises(db.errors.QueryCanceled, match=r"error in \.read\(\) call") as caught:
        cur.copy_from(Reader(lines(100), broken), "t")

    assert "ZeroDivisionError a broken file" in str(caught.value)
    assert caught.value.__cause__ is broken
    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_exit_raised_by_the_files_read_propagates(conn, cur, error):
    with pytest.raises(type(error)) as caught:
        cur.copy_from(Reader(lines(10), error), "t")

    assert caught.value is error
    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), psycopg2.DataError()])
def test_error_of_the_files_write_propagates(conn, cur, error):
    cur.copy_from(io.StringIO(lines(100_000)), "t")
    file = Writer(error)

    with pytest.raises(type(error)) as caught:
        cur.copy_to(file, "t")

    assert caught.value is error
    assert len(file.got) == 1
    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


@pytest.mark.parametrize("piece", [3, None, [1], bytearray(b"1\ta\n")])
def test_read_of_another_type_fails_the_copy(db, conn, cur, piece):
    with pytest.raises(db.Error, match=f"TypeError read.. returned {type(piece).__name__}"):
        cur.copy_from(Reader(piece), "t")

    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


def test_text_that_the_encoding_lacks_fails_the_copy(db, conn):
    conn.set_client_encoding("LATIN1")
    cur = conn.cursor()
    cur.execute("create temp table t (data text)")

    with pytest.raises(db.errors.QueryCanceled, match="UnicodeEncodeError"):
        cur.copy_from(io.StringIO("\u2603\n"), "t")


def test_files_without_the_methods_are_refused(cur):
    with pytest.raises(TypeError, match=r"argument 1 must have a \.read\(\) method"):
        cur.copy_from(Writer(), "t")
    with pytest.raises(TypeError, match=r"argument 1 must have a \.write\(\) method"):
        cur.copy_to(Reader(), "t")
    with pytest.raises(TypeError, match="file must be a readable file-like object for COPY FROM"):
        cur.copy_expert("copy t from stdin", object())

    assert table(cur) == []


@pytest.mark.parametrize(
    ("statement", "file"), [("copy t from stdin", Writer()), ("copy t to stdout", Reader())]
)
def test_file_for_the_other_direction(db, conn, cur, statement, file):
    cur.execute("insert into t values (1)")

    with pytest.raises((AttributeError, db.Error)):
        cur.copy_expert(statement, file)

    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


@pytest.mark.parametrize(
    ("statement", "method"), [("copy t from stdin", "from"), ("copy t to stdout", "to")]
)
def test_execute_names_the_method_and_leaves_the_connection_usable(
    db, conn, cur, statement, method
):
    cur.execute("insert into t values (1)")
    conn.commit()

    with pytest.raises(db.ProgrammingError) as caught:
        cur.execute(statement)

    assert str(caught.value) == (
        f"can't execute COPY {method.upper()}: use the copy_{method}() method instead"
    )
    conn.rollback()
    assert table(cur) == [(1, None)]


@pytest.mark.parametrize("statement", ["select 1", "insert into t values (7) returning id"])
def test_statement_that_is_no_copy_is_run_as_it_is(cur, statement):
    cur.copy_expert(statement, io.StringIO())

    assert cur.rowcount == 1


def test_empty_statement(db, cur):
    with pytest.raises(db.ProgrammingError, match="can't execute an empty query"):
        cur.copy_expert("", io.StringIO())


def test_closed_cursor_and_connection(db, conn, cur):
    cur.close()

    with pytest.raises(db.InterfaceError, match="cursor already closed"):
        cur.copy_from(io.StringIO(), "t")
    other = conn.cursor()
    conn.close()
    with pytest.raises(db.InterfaceError):
        other.copy_to(io.StringIO(), "t")


def test_file_may_wait(cur):
    class Slow(Reader):
        def read(self, size):
            current().sleep(0.002)
            return super().read(size)

    cur.copy_from(Slow("1\ta\n", "2\tb\n", "3\tc\n"), "t")

    assert cur.rowcount == 3


def test_file_may_use_another_connection_but_not_this(db, conn, auto, cur):
    source = auto.cursor()

    class Nosy(Reader):
        def read(self, size):
            with pytest.raises(db.ProgrammingError, match="inside another operation"):
                conn.cursor().execute("select 1")
            source.execute("select '1\ta\n'")
            return super().read(size)

    cur.copy_from(Nosy("1\ta\n"), "t")

    assert table(cur) == [(1, "a")]


def test_no_reference_to_the_file_is_kept(conn, cur):
    class Weak(io.StringIO):
        pass

    for run in (
        lambda file: cur.copy_expert("copy t from stdin", file),
        lambda file: cur.copy_from(file, "t"),
        lambda file: cur.copy_to(file, "t"),
        lambda file: failing(cur, file),
    ):
        file = Weak()
        before = sys.getrefcount(file)
        run(file)
        gc.collect()
        after, seen = sys.getrefcount(file), weakref.ref(file)
        del file
        assert after == before
        assert seen() is None


def test_copy_begins_a_transaction_or_stands_alone(connect, create):
    name = create("(id int)").partition(".")
    conn, other = connect(), connect()
    other.autocommit = True
    count = f"select count(*) from {''.join(name)}"

    for one in (conn, other):
        one.cursor().copy_expert(f"copy {''.join(name)} from stdin", io.StringIO("1\n"))

    assert table(other.cursor(), count) == [(1,)]
    conn.commit()
    assert table(other.cursor(), count) == [(2,)]


def test_notification_during_a_copy_arrives(conn, auto, cur):
    cur.execute("listen greenpg_copy")
    conn.commit()

    class Notifying(Reader):
        def read(self, size):
            auto.cursor().execute("notify greenpg_copy, 'during'")
            return super().read(size)

    cur.execute("create temp table u (id int)")
    cur.copy_from(Notifying("1\n"), "u")
    conn.commit()
    conn.poll()

    assert {note.payload for note in conn.notifies} == {"during"}


def test_two_copies_in_one_statement(conn, cur):
    with pytest.raises(psycopg2.Error):
        cur.copy_expert("copy t from stdin; copy t from stdin", io.StringIO("1\ta\n"))

    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


def test_unreachable_libpq_is_reported(conn, cur, monkeypatch):
    monkeypatch.setattr(libpq, "_dll", None)
    monkeypatch.setattr(libpq, "_reason", "psycopg2's libpq cannot be reached: a test")

    for use in (
        lambda: cur.copy_from(io.StringIO(), "t"),
        lambda: cur.copy_to(io.StringIO(), "t"),
        lambda: cur.copy("copy t from stdin").__enter__(),
    ):
        with pytest.raises(greenpg.errors.FeatureUnavailable, match="a test; install psycopg2-"):
            use()

    assert table(cur) == []


def test_another_wait_callback_gets_psycopg2s_refusal(db, cur):
    greenpg.set_wait_callback(lambda conn: greenpg.extras.wait_select(conn))
    try:
        with pytest.raises(db.ProgrammingError, match="copy_from cannot be used with an asynchr"):
            cur.copy_from(io.StringIO(), "t")
        with pytest.raises(db.ProgrammingError, match="and its wait callback"):
            cur.copy("copy t from stdin").__enter__()
    finally:
        greenpg.set_wait_callback(None)


def test_asynchronous_connection_gets_psycopg2s_refusal(db, connect):
    conn = connect(async_=1)
    greenpg.wait(conn)
    cur = conn.cursor()

    with pytest.raises(db.ProgrammingError, match="copy_from cannot be used in asynchronous mode"):
        cur.copy_from(io.StringIO(), "t")
    with pytest.raises(db.ProgrammingError, match="copy cannot be used in asynchronous mode"):
        cur.copy("copy t from stdin").__enter__()
