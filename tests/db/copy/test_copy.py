"""COPY from and to files: psycopg2's methods."""

from __future__ import annotations

import io

import pytest

from greenpg import sql
from tests.db.copy.conftest import Reader, Writer, lines, table

ROW = 300_000  # characters: more than any buffer on the way


COLUMNS = 1600


def copied(cur, kind=io.StringIO, name="t", **options):
    file = kind()
    cur.copy_to(file, name, **options)
    return file.getvalue()


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


def test_error_in_the_columns_propagates(db, cur):
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


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("UTF8", 'j\u00f6rg "x"'), ("LATIN1", 'j\u00f6rg "x"'), ("SJIS", "\u8868"), ("GBK", "\u529f")],
)
def test_names_are_right_on_every_client_encoding(cur, encoding, name):
    quoted = '"' + name.replace('"', '""') + '"'
    cur.execute(f"create temp table {quoted} (id int, {quoted} text)")
    cur.connection.commit()
    cur.connection.set_client_encoding(encoding)
    values = f"1\t{name}\n"

    cur.copy_from(io.StringIO(values), name, columns=["id", name])
    cur.copy_from(io.StringIO(values), name.encode(encoding), columns=["id", name.encode(encoding)])

    assert copied(cur, name=name, columns=["id", name]) == 2 * values
