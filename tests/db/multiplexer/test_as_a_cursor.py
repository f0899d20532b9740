"""Each statement gives what a cursor of psycopg2 gives, prepared or not, and in a pipeline."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg2
import psycopg2.extensions as ext
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenpg import sql
from greenpg.backend import current
from greenpg.multiplexer._writer import Writer

TIMES = 3  # the first two are not prepared
THRESHOLD = 2
FIELDS = (
    "name", "type_code", "display_size", "internal_size", "precision", "scale", "null_ok",
    "table_oid", "table_column",
)  # fmt: skip
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def cursor(dsn):
    """A cursor of psycopg2 itself under autocommit, in what the backend leaves of it."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    yield conn.cursor()
    conn.close()


@pytest.fixture
def one(make):
    return make(max_size=1, prepare_threshold=THRESHOLD)


def shown(value):
    """Return a value with its type, so that 1, True and Decimal(1) differ."""
    if isinstance(value, memoryview):
        return "memoryview", bytes(value)
    if isinstance(value, list | tuple):
        return type(value), [shown(item) for item in value]
    return type(value), repr(value)


def columns(result):
    found = result.description
    return None if found is None else [[getattr(one, name) for name in FIELDS] for one in found]


def answer(execute, query, args):
    """Return all that a statement gives: its rows and attributes, or its error."""
    try:
        result = execute(query, args)
        told = result.rowcount, result.statusmessage, columns(result)
        return *told, None if result.description is None else shown(result.fetchall())
    except Exception as error:
        code, diag = getattr(error, "pgcode", None), getattr(error, "diag", None)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        place = getattr(diag, "statement_position", None)
        return [*dict.fromkeys(kinds)], code, place, str(error)


def answers(cursor, one, conn, query, args):
    """Return what a cursor gives, and what each of the other ways gives that differs."""

    def by_cursor(query, args):
        cursor.execute(query, args)
        return cursor

    def in_pipeline(query, args):
        with conn.pipeline() as pipe:
            return pipe.execute(query, args)

    expected = answer(by_cursor, query, args)
    found = [answer(one.execute, query, args) for _ in range(TIMES)]
    found.append(answer(in_pipeline, query, args))
    return expected, [other for other in found if other != expected]


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(),
    st.decimals(),
    st.decimals(-(10**10), 10**10, places=0),
)
MOMENTS = st.one_of(
    st.dates(), st.datetimes(), st.timedeltas(), st.times(),
    st.datetimes(timezones=st.sampled_from([dt.timezone.utc, dt.timezone(dt.timedelta(hours=5))])),
)  # fmt: skip
PLAIN = st.one_of(
    st.none(), st.booleans(), NUMBERS, MOMENTS, st.binary(max_size=5), st.text(max_size=5),
    st.sampled_from(["it's", "\\", "%s", "5", "2020-01-01", "\0", "\ud800", "[1]", "{1,2}"]),
)  # fmt: skip
VALUES = st.one_of(
    PLAIN,
    st.lists(st.integers(-3, 3), max_size=3),
    st.lists(st.text("a'\\,{} ", max_size=3), max_size=3),
    st.tuples(st.integers(), st.text("ab", max_size=2)),
    st.binary(max_size=3).map(lambda value: memoryview(value)),
    st.sampled_from([ext.AsIs("1 + 1"), ext.Binary(b"x"), object()]),
)
PIECES = st.sampled_from(
    [
        "%s", "(%s)", "- %s", "%s is null", "pg_typeof(%s)::text", "coalesce(%s, null)", "%s as x",
        "null", "null::numeric(7, 2)", "1.50", "'x'::varchar(9)", "array[%s]", "%s = %s", "5 %% 3",
        "'100%%'", "%s || 'x'", "%s + 1", "%s /* it's \" */", "%s -- $$\n", "U&'d\\0061t'",
        "e'\\''", "$q$ ; $q$", "(select max(oid) from pg_am where amname = %s)",
        "json_build_array(%s)",
    ]
)  # fmt: skip
ENDS = st.sampled_from(
    ["", ";", " ; -- end", " from pg_am", " from pg_am order by %s", " limit %s", " union select 1",
     " from nowhere", " where"]
)  # fmt: skip


@st.composite
def statements(draw):
    pieces = draw(st.lists(PIECES, max_size=4))
    query = draw(st.sampled_from(["select ", "/* a */ SELECT\n"])) + ", ".join(pieces) + draw(ENDS)
    count = query.count("%s") + draw(st.sampled_from([0] * 9 + [1, -1]))
    args = [draw(VALUES) for _ in range(max(count, 0))]
    if draw(st.booleans()):
        return query, tuple(args)
    for number in range(query.count("%s")):
        query = query.replace("%s", f"%(a{number})s", 1)
    return query, {f"a{number}": value for number, value in enumerate(args)}


def without_place(found):
    """Leave out the place of a parameter's value, which no text of a prepared statement has."""
    if not isinstance(found[0], list) or found[1] is None:
        return found
    return found[0], found[1], found[3].split("\n")[0]


@SETTINGS
@given(statements())
def test_any_statement_gives_what_a_cursor_gives(cursor, one, auto, statement):
    expected, others = answers(cursor, one, auto, *statement)

    assert [other for other in others if without_place(other) != without_place(expected)] == []


@pytest.mark.parametrize(
    "query",
    [
        "", " -- x", ";", "select", "select from pg_am",
        "select 1::numeric(10, 2), 2::numeric, 3::numeric(1000, 3), null::varchar(20), '1'::bit(3)",
        "select c.relname, c.ctid, c.tableoid, 1 + 1 from pg_class c where false", "table pg_am",
        "explain (costs off) select 1", "show work_mem", "values (1), (2)", "vacuum pg_am",
        "do $$begin raise exception using errcode = 'XX999'; end$$",
        "do $$begin raise exception using errcode = '22999'; end$$",
        "do $$begin raise exception using errcode = '40999'; end$$",
        "do $$begin raise exception using errcode = 'ZZ999'; end$$",
        "do $$begin raise exception 'n' using detail = 'd', hint = 'h', table = 't'; end$$",
    ],
)  # fmt: skip
def test_text_gives_what_a_cursor_gives(cursor, one, auto, query):
    expected, others = answers(cursor, one, auto, query, None)

    assert (expected, others) == (expected, [])


@pytest.mark.parametrize(
    "value",
    [
        Decimal(3), Decimal("-0"), Decimal(2**40), Decimal("1E+5"), Decimal("1.0"), b"x",
        float("inf"), dt.date(2020, 1, 2), dt.datetime(2020, 1, 2),
        dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc),
    ],
)  # fmt: skip
def test_column_that_is_a_parameter_has_a_literals_name_and_type(cursor, one, auto, value):
    expected, others = answers(cursor, one, auto, "select %s, pg_typeof(%s)::text", (value, value))

    assert (expected, others) == (expected, [])


def test_more_parameters_than_the_protocol_has_are_written_as_literals(make):
    one, many = make(max_size=1, prepare_threshold=0), 65_536
    query = f"select cardinality(array[{','.join(['%s'] * many)}])"

    assert one.execute(query, (1,) * many).fetchone() == (many,)


def test_cursor_whose_connection_was_lost_meanwhile_writes_nothing(connect):
    """In another OS thread, between the choice of the cursor and its use."""
    lost, other = connect().cursor(), connect().cursor()
    lost.connection.close()
    writer = Writer("one", 0.05, None, iter([lost, other, other]).__next__)

    query = sql.SQL("select {}").format(sql.Identifier("a"))  # needs the connection
    assert writer.one(query).statements == (b'select "a"',)


@pytest.mark.green
def test_executemany_lets_other_tasks_run_while_it_makes_results(one, spawn, monkeypatch):
    """With a time slice of no length they have a turn after each one."""
    monkeypatch.setattr("greenpg._session.time_slice.SECONDS", 0)
    rows, turns, ended = [(number,) for number in range(200)], list[int](), list[bool]()
    one.execute("select 1")

    def others():
        while not ended:
            now = one.measures()
            turns.append(now.statements == 2 and not now.waiting + now.in_flight)
            current().pause()

    job = spawn(others)
    found = one.executemany("select %s", rows)
    ended.append(True)
    job.result()

    assert [result.fetchone() for result in found] == rows
    assert sum(turns) >= len(rows) / 2


def test_first_error_of_a_large_executemany_is_raised(one):
    rows = [(6 - number,) for number in range(1000)]

    with pytest.raises(psycopg2.errors.DivisionByZero):
        one.executemany("select 6 / %s", rows)

    assert one.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("encoding", ["latin1", "euc_jp", "sql_ascii", "win1252"])
@pytest.mark.parametrize(
    ("query", "args"),
    [
        ("select 'gr\u00fcn' as \"gr\u00fcn\"", None), ("select %s", ("gr\u00fcn",)),
        ("select %s", ("\u20ac",)), ("select %s", ("\u65e5",)), ("select chr(8364)", None),
        (b"select '\xff\xfe'", None), ("select * from \"n\u00e9\"", None),
        ("select %s::bytea", (b"\xe9\xff",)),
    ],
)  # fmt: skip
def test_encodings_are_the_connections(make, connect, dsn, encoding, query, args):
    one = make(
        max_size=1, prepare_threshold=THRESHOLD,
        configure=lambda conn: conn.set_client_encoding(encoding),
    )  # fmt: skip
    conn = connect()
    conn.autocommit = True
    conn.set_client_encoding(encoding)
    expected, others = answers(conn.cursor(), one, conn, query, args)

    assert (expected, others) == (expected, [])


def test_types_and_adapters_of_the_moment_count(one, cursor, auto, monkeypatch):
    loud = ext.new_type((23,), "LOUD", lambda value, _: [value])
    usual = ext.string_types[23]
    query, args = "select %s, %s", (5, "x")
    expected = [answers(cursor, one, auto, query, args)]

    monkeypatch.setitem(ext.string_types, 23, loud)
    expected.append(answers(cursor, one, auto, query, args))
    monkeypatch.setitem(ext.string_types, 23, usual)
    monkeypatch.setitem(ext.adapters, (int, ext.ISQLQuote), lambda n: ext.AsIs(n + 1))
    expected.append(answers(cursor, one, auto, query, args))
    monkeypatch.undo()
    expected.append(answers(cursor, one, auto, query, args))

    assert [others for _, others in expected] == [[]] * 4
    assert len({repr(answer) for answer, _ in expected}) == 3


@pytest.mark.parametrize("threshold", [None, 0], ids=["plain", "prepared"])
def test_backslashes_are_kept_where_the_servers_strings_do_not_conform(make, dsn, threshold):
    """psycopg2 looks at the setting as it connects; the other options are kept."""
    options = "-c search_path=old -c standard_conforming_strings=off"
    mux = make(ext.make_dsn(dsn, options=options), prepare_threshold=threshold)
    value, raw = "\\'; select 1 --", b"\\\xff"

    found = [mux.execute("select %s, %s, %s", ([value], value, raw)).fetchone() for _ in range(3)]

    assert [(one, two, bytes(three)) for one, two, three in found] == [([value], value, raw)] * 3
    assert mux.execute("select current_setting('search_path')").fetchone() == ("old",)
