"""COPY in a with block: psycopg 3's methods."""

from __future__ import annotations

import datetime as dt
import io
import json
import shutil
import uuid
from decimal import Decimal
from typing import Any

import psycopg2.extensions as ext
import pytest
from psycopg2.extras import DateRange, Inet, Json, NumericRange

import greenpg
from greenpg import sql

IN, OUT = "copy t from stdin", "copy t to stdout"


@pytest.fixture
def cur(conn):
    """A cursor in a transaction that made the table t."""
    made = conn.cursor()
    made.execute("create temp table t (id int primary key, data text)")
    return made


def table(cur, query="select * from t order by id"):
    cur.execute(query)
    return cur.fetchall()


def rows_of(cur, statement, types=None):
    with cur.copy(statement) as copy:
        if types is not None:
            copy.set_types(types)
        return list(copy.rows())


def load(cur, *rows):
    with cur.copy(IN) as copy:
        for row in rows:
            copy.write_row(row)


@pytest.mark.parametrize(
    "data", ["1\t\u2603\n", "1\t\u2603\n".encode(), bytearray("1\t\u2603\n".encode())]
)
def test_write_takes_text_and_bytes(cur, data):
    with cur.copy(IN) as copy:
        copy.write(data)
        copy.write(memoryview(b"2\t\\N\n"))

    assert (cur.rowcount, cur.statusmessage) == (2, "COPY 2")
    assert table(cur) == [(1, "\u2603"), (2, None)]


def test_write_takes_pieces_of_any_size(cur):
    text = "".join(f"{n}\t{chr(97 + n % 26) * (n * 7)}\n" for n in range(2000))

    with cur.copy(IN) as copy:
        copy.write(text[:1])
        copy.write("")
        copy.write(text[1:90_001])
        copy.write(text[90_001:])
    with cur.copy(OUT) as copy:
        back = b"".join(copy)

    assert back.decode() == text


def test_other_types_cannot_be_written(cur):
    with pytest.raises(TypeError), cur.copy(IN) as copy:
        copy.write(5)


def test_rows_there_and_back(cur):
    rows = [(1, "a\tb\nc\\d\r"), (2, None), (3, ""), (4, "\\N"), (5, "\u2603\b\v\f")]

    load(cur, *rows)

    assert table(cur) == rows
    assert rows_of(cur, OUT) == [(str(n), text) for n, text in rows]
    assert rows_of(cur, OUT, ["int4", "text"]) == rows


VALUES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int8": [2**40, -1],
    "numeric": [Decimal("1.10"), Decimal("-1e-7")],
    "float8": [1.5, float("inf"), 1e-300],
    "text": ["", "null", "{}", "it's", 'a "quoted" \\ word'],
    "bytea": [b"", b"\0\xff\\"],
    "date": [dt.date(2020, 2, 29)],
    "time": [dt.time(1, 2, 3, 4)],
    "timestamp": [dt.datetime(2020, 1, 2, 3, 4, 5, 6)],
    "timestamptz": [dt.datetime(2020, 1, 2, 3, 4, 5, 6, dt.timezone.utc)],
    "interval": [dt.timedelta(-3, 5, 7)],
    "int4[]": [[], [1, None, -3], [[1, 2], [3, 4]]],
    "text[]": [["", "NULL", "a b", 'q"\\', None, "{,}"]],
    "date[]": [[dt.date(2020, 2, 29)]],
    "int4range": [NumericRange(1, 5), NumericRange(None, 5), NumericRange(empty=True)],
    "daterange": [DateRange(dt.date(2020, 2, 29), None)],
    "jsonb": [Json({"a": 'it\'s \\ \t "x"'}), Json([None, 1.5])],
    "inet": [Inet("10.0.0.1/8")],
    "uuid": [uuid.UUID(int=5)],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_arrive_as_execute_would_bring_them(conn, kind):
    cur = conn.cursor()
    cur.execute(f"create temp table copied (value {kind})")
    greenpg.extras.register_uuid(conn_or_curs=conn)

    with cur.copy("copy copied from stdin") as copy:
        for value in VALUES[kind]:
            copy.write_row([value])

    for value in VALUES[kind]:
        cur.execute(f"select count(*) from copied where value = %s::{kind}", (value,))
        assert cur.fetchone() == (1,), value


def test_composite_value(conn):
    cur = conn.cursor()
    cur.execute("create type pg_temp.pair as (number int, word text)")
    cur.execute("create temp table copied (value pg_temp.pair)")

    with cur.copy("copy copied from stdin") as copy:
        copy.write_row([(1, 'a, "b" (c)')])
        copy.write_row([(None, "")])

    assert table(cur, "select (value).number, (value).word from copied") == [
        (1, 'a, "b" (c)'),
        (None, ""),
    ]


def test_registered_adapter_is_used(conn, cur):
    class Name:
        def __conform__(self, protocol):
            return ext.QuotedString("it's \\ mine")

    with cur.copy(IN) as copy:
        copy.write_row([1, Name()])

    assert table(cur) == [(1, "it's \\ mine")]


def test_value_without_text_fails_the_copy(db, conn, cur):
    conn.commit()

    with pytest.raises(db.ProgrammingError, match="can't adapt type 'object'"):
        load(cur, [1, "one"], [2, object()])

    conn.rollback()
    assert table(cur) == []


def test_server_without_standard_strings(conn, cur):
    class Name(str):
        __slots__ = ()

    cur.execute("set standard_conforming_strings = off")
    with cur.copy(IN) as copy:
        copy.write_row([1, Name("it's \\ a 'name'")])

    assert table(cur) == [(1, "it's \\ a 'name'")]


def test_text_is_in_the_connections_encoding(conn):
    conn.set_client_encoding("LATIN1")
    cur = conn.cursor()
    cur.execute("create temp table t (data text)")

    with cur.copy(IN) as copy:
        copy.write("h\xf6flich\n")
        copy.write_row(["\xfcber"])
    with cur.copy(OUT) as copy:
        data = copy.read()

    assert data == b"h\xf6flich\n\xfcber\n"
    assert rows_of(cur, OUT) == [("h\xf6flich",), ("\xfcber",)]
    assert rows_of(cur, OUT, ["text"]) == [("h\xf6flich",), ("\xfcber",)]


def test_parameters_and_composed_statements(cur):
    query = sql.SQL("copy (select {}, %s) to stdout").format(sql.Literal("it's"))

    with cur.copy(query, ("x\ty",)) as copy:
        rows = list(copy.rows())

    assert rows == [("it's", "x\ty")]
    assert cur.query == b"copy (select 'it''s', 'x\ty') to stdout"


def test_large_rows_are_put_together(cur):
    with cur.copy(
        "copy (select n, repeat('x', 200000) from generate_series(1, 5) n) to stdout"
    ) as copy:
        rows = list(copy.rows())

    assert rows == [(str(n), "x" * 200_000) for n in range(1, 6)]


def test_read_row_and_read_end_with_nothing(cur):
    with cur.copy("copy (values (1), (2)) to stdout") as copy:
        rows = [copy.read_row() for _ in range(4)]
        rest = copy.read()

    assert rows == [("1",), ("2",), None, None]
    assert rest == b""
    assert cur.rowcount == 2


def test_types_may_be_names_oids_and_typecasters(conn, cur):
    shout = ext.new_type((25,), "SHOUT", lambda value, cur: value and value.upper())
    ext.register_type(ext.new_type((20,), "LONG", lambda value, cur: f"<{value!s}>"), conn)
    query = "copy (select 1, 2, 'x', null, '{1,2}') to stdout"

    assert rows_of(cur, query, ["int4", 20, shout, shout, 1007]) == [(1, "<2>", "X", None, [1, 2])]


def test_types_that_do_not_fit(db, cur):
    with pytest.raises(db.DataError, match=r"has 2 fields, set_types\(\) named 1"):
        rows_of(cur, "copy (select 1, 2) to stdout", ["int4"])
    cur.connection.rollback()
    with pytest.raises(db.ProgrammingError, match="unknown type name 'number'; give its oid"):
        rows_of(cur, "copy (select 1, 2) to stdout", ["number"])


def test_binary_format_passes_as_bytes_only(db, conn, cur):
    with cur.copy("copy (select 7) to stdout (format binary)") as copy:
        data = b"".join(copy)
    cur.execute("create temp table numbers (number int)")
    with cur.copy("copy numbers from stdin (format binary)") as copy:
        copy.write(data)

    assert table(cur, "select * from numbers") == [(7,)]
    with pytest.raises(db.NotSupportedError, match="text format"):
        rows_of(cur, "copy numbers to stdout (format binary)")


def test_csv_passes_as_text(cur):
    with cur.copy("copy t from stdin (format csv)") as copy:
        copy.write('1,"a, b"\n2,\n')

    with cur.copy("copy t to stdout (format csv, header)") as copy:
        assert b"".join(copy) == b'id,data\n1,"a, b"\n2,\n'


def test_shutil_copies_into_it(cur):
    with cur.copy(IN) as copy:
        shutil.copyfileobj(io.StringIO("1\tone\n2\ttwo\n"), copy)

    assert cur.rowcount == 2


def test_bad_row_is_the_servers_error_and_loads_nothing(db, conn, cur):
    conn.commit()

    with pytest.raises(db.errors.InvalidTextRepresentation) as caught:
        load(cur, *([number, "text"] for number in [*range(5000), "x", *range(6000, 9000)]))

    assert caught.value.pgcode == caught.value.diag.sqlstate == "22P02"
    assert caught.value.diag.context.startswith("COPY t, line 5001, column id")
    assert isinstance(caught.value, db.DataError)
    conn.rollback()
    assert table(cur) == []
    assert cur.rowcount == 0


def test_error_half_way_through_the_data(db, conn, cur):
    query = "copy (select 1/(90000-n) from generate_series(1, 99999) n) to stdout"

    with pytest.raises(db.errors.DivisionByZero), cur.copy(query) as copy:
        for _ in copy.rows():
            pass

    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


def stopped(cur, statement, error):
    with cur.copy(statement) as copy:
        if statement == IN:
            copy.write("1\tone\n")
        else:
            copy.read()
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("statement", [IN, "copy (select generate_series(1, 99999)) to stdout"])
def test_exception_of_the_block_propagates(conn, cur, statement, error):
    conn.commit()

    with pytest.raises(type(error)) as caught:
        stopped(cur, statement, error)

    assert caught.value is error
    assert caught.value.__context__ is None
    conn.rollback()
    assert table(cur) == []


def test_autocommit_needs_no_rollback_after_an_exception(auto):
    cur = auto.cursor()
    cur.execute("create temp table t (id int, data text)")

    with pytest.raises(ZeroDivisionError):
        stopped(cur, IN, ZeroDivisionError())

    assert table(cur) == []


def test_block_entered_again_sends_nothing_of_the_one_that_failed(auto):
    cur = auto.cursor()
    cur.execute("create temp table t (id int)")
    copy = cur.copy("copy t from stdin")

    def write(number):
        with copy:
            copy.write(f"{number}\n")
            if number == 1:
                raise KeyError

    with pytest.raises(KeyError):
        write(1)
    write(2)

    assert table(cur) == [(2,)]


@pytest.mark.parametrize(
    "statement", ["select 1", "insert into t values (1)", "copy t to '/dev/null'"]
)
def test_statement_must_be_a_copy_of_the_clients(db, cur, statement):
    with pytest.raises(db.ProgrammingError, match=r"requires COPY \.\.\. FROM STDIN or COPY"):
        cur.copy(statement).__enter__()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("copy no_such_table from stdin", "UndefinedTable"),
        ("copy t from stdin nonsense", "SyntaxError"),
        ("copy t from stdin; copy t from stdin", "QueryCanceled"),
    ],
)
def test_errors_have_psycopg2s_classes(db, conn, cur, statement, error):
    with pytest.raises(getattr(db.errors, error)), cur.copy(statement):
        pass

    conn.rollback()
    assert table(cur, "select 1") == [(1,)]


def test_wrong_direction(db, conn, cur):
    with pytest.raises(db.ProgrammingError, match="this copy is a COPY FROM"), cur.copy(IN) as copy:
        copy.read()
    conn.rollback()
    writing = cur.copy("copy (select 1) to stdout")
    with pytest.raises(db.ProgrammingError, match="this copy is a COPY TO"), writing as copy:
        copy.write("x")


def test_copy_is_over_after_its_block(db, cur):
    with cur.copy(IN) as copy:
        copy.write("1\tone\n")

    with pytest.raises(db.ProgrammingError, match="this copy is not running"):
        copy.write("2\ttwo\n")
    assert copy.read() == b""


def test_connection_is_free_once_all_is_read(cur):
    with cur.copy("copy (select 1) to stdout") as copy:
        data = b"".join(copy)
        assert table(cur, "select 7") == [(7,)]

    assert data == b"1\n"


def test_notices_and_transaction_are_psycopg2s(conn, connect):
    cur = conn.cursor()
    cur.execute("create temp table t (data text)")
    cur.execute(
        "create function pg_temp.shout() returns trigger language plpgsql as"
        " $$ begin raise notice 'saw %', new.data; return new; end $$;"
        "create trigger shout before insert on t for each row execute function pg_temp.shout()"
    )
    conn.commit()

    with cur.copy(IN) as copy:
        copy.write("one\n")

    assert conn.notices[-1] == "NOTICE:  saw one\n"
    assert conn.status == ext.STATUS_BEGIN
    conn.rollback()
    assert table(cur, "select * from t") == []


def test_named_cursor_and_closed_cursor(db, conn, cur):
    with pytest.raises(db.ProgrammingError, match="named cursor"):
        conn.cursor("named").copy(OUT).__enter__()
    cur.close()
    with pytest.raises(db.InterfaceError, match="cursor already closed"):
        cur.copy(OUT).__enter__()

    assert table(conn.cursor(), "select 1") == [(1,)]


def test_json_rows_there_and_back(conn):
    cur = conn.cursor()
    cur.execute("create temp table documents (document jsonb)")
    documents = [{"text": 'tab\t "quote" \\ \u2603', "list": [1, None]}, {}]

    with cur.copy("copy documents from stdin") as copy:
        for document in documents:
            copy.write_row([json.dumps(document)])

    assert rows_of(cur, "copy documents to stdout", ["jsonb"]) == [(one,) for one in documents]
