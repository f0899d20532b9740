"""COPY from and to files: psycopg2's methods."""

from __future__ import annotations

import gc
import io
import sys
import weakref

import psycopg2
import pytest

import greenpg
from greenpg import sql
from greenpg._protocol.libpq import libpq
from greenpg.backend import current

ROW = 300_000  # characters: more than any buffer on the way
COLUMNS = 1600


@pytest.fixture
def cur(conn):
    """A cursor in a transaction that made the table t."""
    made = conn.cursor()
    made.execute("create temp table t (id int primary key, data text)")
    return made


def lines(count, text="some text"):
    return "".join(f"{n}\t{text}\n" for n in range(count))


def table(cur, query="select * from t order by id"):
    cur.execute(query)
    return cur.fetchall()


def copied(cur, kind=io.StringIO, name="t", **options):
    file = kind()
    cur.copy_to(file, name, **options)
    return file.getvalue()


def failing(cur, file):
    cur.connection.commit()
    with pytest.raises(psycopg2.Error):
        cur.copy_from(file, "no such table")
    cur.connection.rollback()


class Reader:
    """As little of a file as copy_from wants; keeps the sizes it is asked for."""

    def __init__(self, *pieces):
        self._pieces = [*pieces]
        self.sizes = []

    def read(self, size):
        self.sizes.append(size)
        piece = self._pieces.pop(0) if self._pieces else ""
        if isinstance(piece, BaseException):
            raise piece
        return piece


class Writer:
    """As little of a file as copy_to wants."""

    def __init__(self, error=None):
        self.got = []
        self._error = error

    def write(self, data):
        self.got.append(data)
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("kind", [io.StringIO, lambda text: io.BytesIO(text.encode())])
def test_copy_from_reads_text_and_bytes(cur, kind):
    cur.copy_from(kind("1\t\u2603\n2\t\\N\n"), "t")

    assert cur.rowcount == 2
    assert table(cur) == [(1, "\u2603"), (2, None)]


@pytest.mark.parametrize(
    ("kind", "content"), [(io.StringIO, "1\t\u2603\n"), (io.BytesIO, "1\t\u2603\n".encode())]
)
def test_copy_to_writes_what_the_file_takes(cur, kind, content):
    cur.execute("insert into t values (1, '\u2603')")

    assert copied(cur, kind) == content
    assert cur.rowcount == 1


def test_text_is_in_the_connections_encoding(conn, connect):
    conn.set_client_encoding("LATIN1")
    cur = conn.cursor()
    cur.execute("create temp table t (id int, data text)")

    cur.copy_from(io.StringIO("1\th\xf6flich\n"), "t")

    assert copied(cur, io.BytesIO) == b"1\th\xf6flich\n"
    assert copied(cur, io.StringIO) == "1\th\xf6flich\n"


def test_characters_may_lie_across_blocks(cur):
    text = "\u2603" * ROW

    cur.copy_from(io.StringIO(f"1\t{text}\n"), "t", size=1001)

    assert copied(cur, io.StringIO) == f"1\t{text}\n"
    assert table(cur) == [(1, text)]


@pytest.mark.parametrize("size", [1, 7, 8192, 1 << 20, 1 << 62])
def test_any_size_of_reads(cur, size):
    content = lines(2000 if size > 7 else 20)

    cur.copy_from(io.StringIO(content), "t", size=size)

    assert copied(cur) == content


def test_size_is_passed_to_the_file(cur):
    given, default = Reader("1\ta\n"), Reader("2\ta\n")

    cur.copy_from(given, "t", size=123)
    cur.copy_expert("copy t from stdin", default)

    assert given.sizes == [123, 123]
    assert default.sizes == [8192, 8192]


def test_file_that_ignores_the_size_may_give_everything_at_once(cur):
    cur.copy_from(Reader(lines(200_000)), "t", size=10)

    assert cur.rowcount == 200_000


def test_rows_larger_than_any_buffer(cur):
    content = "".join(f"{n}\t{chr(97 + n) * ROW}\n" for n in range(5))

    cur.copy_from(io.StringIO(content), "t")

    assert copied(cur) == content


def test_output_comes_in_blocks(cur):
    cur.copy_from(io.StringIO(lines(20_000)), "t")
    file = Writer()

    cur.copy_to(file, "t")

    assert b"".join(file.got) == lines(20_000).encode()
    assert len(file.got) < 100


def test_empty_table_and_empty_file(cur):
    cur.copy_from(io.StringIO(""), "t")

    assert cur.rowcount == 0
    assert copied(cur) == ""


def test_separator_null_and_columns(cur):
    cur.copy_from(io.StringIO("a|1\nnone|2\n"), "t", sep="|", null="none", columns=("data", "id"))

    assert table(cur) == [(1, "a"), (2, None)]
    assert copied(cur, sep=";", null="-", columns=["id", "data"]) == "1;a\n2;-\n"


def test_columns_may_be_any_iterable(cur):
    cur.copy_from(io.StringIO("1\n"), "t", columns=(name for name in ["id"]))

    assert table(cur) == [(1, None)]


def test_error_in_the_columns_comes_out(db, cur):
    def names():
        yield "id"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cur.copy_from(io.StringIO(""), "t", columns=names())

    assert table(cur) == []


def test_names_are_quoted(cur):
    names = ["select", 'double"quote', "Big"]
    listed = ", ".join('"' + name.replace('"', '""') + '" int' for name in names)
    cur.execute(f'create temp table "order" ({listed})')

    cur.copy_from(io.StringIO("1\t2\t3\n"), "order", columns=names)

    assert copied(cur, name="order", columns=names[::-1]) == "3\t2\t1\n"


def test_sixteen_hundred_columns(cur):
    names = [f"column_{n}" for n in range(COLUMNS)]
    cur.execute(f"create temp table wide ({', '.join(f'{name} int' for name in names)})")
    content = "\t".join(str(n) for n in range(COLUMNS)) + "\n"

    cur.copy_from(io.StringIO(content), "wide", columns=names)

    assert copied(cur, name="wide", columns=names) == content


@pytest.mark.parametrize("options", ["(format csv, header)", "(format binary)", "csv quote '!'"])
def test_expert_statements_copy_there_and_back(cur, options):
    cur.copy_from(io.StringIO('1\ta "b", c\n2\t\\N\n'), "t")
    file = io.BytesIO()

    cur.copy_expert(f"copy t to stdout {options}", file)
    cur.execute("truncate t")
    file.seek(0)
    cur.copy_expert(f"copy t from stdin {options}", file)

    assert table(cur) == [(1, 'a "b", c'), (2, None)]


def test_expert_takes_composed_statements_and_queries(cur):
    file = io.StringIO()
    query = sql.SQL("copy (select {}) to stdout").format(sql.Literal("a 'quoted' word"))

    cur.copy_expert(query, file)

    assert file.getvalue() == "a 'quoted' word\n"
    assert cur.query == b"copy (select 'a ''quoted'' word') to stdout"


def test_rowcount_and_query_of_each(cur):
    cur.copy_from(io.StringIO(lines(3)), "t")
    loaded, query = cur.rowcount, cur.query
    copied(cur)

    assert [loaded, cur.rowcount] == [3, 3]
    assert query.startswith(b'COPY "t" FROM stdin WITH DELIMITER AS')
    assert b"TO stdout" in cur.query


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
def test_what_is_no_error_comes_out_of_the_files_read(conn, cur, error):
    with pytest.raises(type(error)) as caught:
        cur.copy_from(Reader(lines(10), error), "t")

    assert caught.value is error
    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), psycopg2.DataError()])
def test_error_of_the_files_write_comes_out(conn, cur, error):
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
def test_execute_tells_the_method_and_leaves_the_connection_usable(
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


def test_libpq_out_of_reach_is_told(conn, cur, monkeypatch):
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
