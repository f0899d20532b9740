"""Run by test_tracing.py under each backend: OpenTelemetry's tracing beside greenpg."""

from __future__ import annotations

import io
import itertools
from contextlib import closing

import psycopg2
import psycopg2.extras
import pytest
from opentelemetry.instrumentation import dbapi
from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg2 import sql
from psycopg2._psycopg import connection as c_connection
from psycopg2.extensions import parse_dsn

import greenpg
from greenpg.backend import current
from greenpg.patch import patcher
from greenpg_conformance.toolkit.heartbeat import calibrated, heartbeat
from greenpg_conformance.toolkit.jobs import Job
from tests.green.plugin import PATCHED

ATTRIBUTES = {"database": "info.dbname", "port": "info.port", "user": "info.user"}
ORDERS = ("before", "after", "explicit")


@pytest.fixture
def provider():
    return TracerProvider()


@pytest.fixture
def spans(provider):
    """A function that returns the spans so far."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter.get_finished_spans
    provider.shutdown()


@pytest.fixture
def unpatched(request):
    """Undo the patch for the test; the function that patches again."""
    backend = current()
    patch, unpatch = patcher(backend)
    unpatch()
    greenpg.use(backend)
    yield patch
    unpatch()
    greenpg.use(backend)
    if request.config.stash[PATCHED]:
        patch()


@pytest.fixture
def instrumentor():
    made = Psycopg2Instrumentor()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


@pytest.fixture(params=ORDERS)
def connect(request, dsn, unpatched, instrumentor, provider):
    """A function that connects, traced before the patch, after it, or without any patch."""
    if request.param == "after":
        unpatched()
    instrumentor.instrument(tracer_provider=provider)
    if request.param == "before":
        unpatched()
    module = greenpg if request.param == "explicit" else psycopg2
    return lambda **factories: module.connect(dsn, **factories)


@pytest.fixture
def conn(connect):
    with closing(connect()) as made:
        made.autocommit = True
        yield made


def statements(spans):
    return [span.attributes["db.statement"] for span in spans()]


def test_queries_are_traced_with_where_they_went(conn, spans, dsn):
    with conn.cursor() as cur:
        cur.execute("select %s", (6,))
        row = cur.fetchone()

    (span,) = spans()
    assert row == (6,)
    assert span.name == "select"
    assert span.attributes["db.system"] == "postgresql"
    assert span.attributes["db.statement"] == "select %s"
    assert span.attributes["db.name"] == conn.info.dbname
    assert span.attributes["db.user"] == conn.info.user
    assert span.attributes["net.peer.port"] == int(parse_dsn(dsn)["port"])


def test_connections_and_cursors_are_greenpgs(conn):
    with conn.cursor() as cur:
        assert isinstance(cur, greenpg.Cursor)

    assert isinstance(conn, greenpg.Connection)


def test_other_tasks_run_during_a_traced_query(conn):
    backend = current()
    limit = calibrated(backend)

    with heartbeat(backend), conn.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (max(0.3, 2 * limit),))


def test_every_kind_of_statement_is_traced(conn, spans):
    composed = sql.SQL("select {}").format(sql.Literal("it's"))

    with conn.cursor() as cur:
        cur.execute("create temp table traced (n int)")
        cur.executemany("insert into traced values (%s)", [(n,) for n in range(3000)])
        cur.execute("select count(*) from traced")
        count = cur.fetchone()
        cur.execute(composed)
        text = cur.fetchone()
        cur.callproc("abs", (-5,))

    assert (count, text, cur.rowcount) == ((3000,), ("it's",), 1)
    assert statements(spans) == [
        "create temp table traced (n int)",
        "insert into traced values (%s)",
        "select count(*) from traced",
        "select 'it''s'",
        "abs",
    ]


def test_copies_streams_and_pipelines_work_beside_it(conn, spans):
    with conn.cursor() as cur:
        cur.execute("create temp table copied (n int)")
        cur.copy_expert("copy copied from stdin", io.StringIO("1\n2\n"))
        with cur.copy("copy copied from stdin") as copy:
            copy.write_row((3,))
        streamed = [row[0] for row in cur.stream("select n from copied order by n")]
    with conn.pipeline() as pipeline:
        piped = pipeline.execute("select sum(n)::int from copied")
    conn.autocommit = False
    with conn, conn.cursor("named") as cur:
        cur.execute("select n from copied order by n desc")
        fetched = cur.fetchall()

    assert streamed == [1, 2, 3]
    assert piped.fetchone() == (6,)
    assert fetched == [(3,), (2,), (1,)]
    assert [text.split()[0] for text in statements(spans)] == ["create", "select", "select"]


def test_factories_of_the_program_are_kept(connect, spans):
    class Ours(c_connection):
        pass

    factories = {
        "connection_factory": Ours,
        "cursor_factory": psycopg2.extras.RealDictCursor,
    }

    with closing(connect(**factories)) as conn, conn.cursor() as cur:
        cur.execute("select 1 as one")
        row = cur.fetchone()

    assert row == {"one": 1}
    assert isinstance(conn, Ours)
    assert isinstance(conn, greenpg.Connection)
    assert statements(spans) == ["select 1 as one"]


def test_tasks_that_share_a_connection_keep_their_traces_apart(conn, spans, provider):
    tracer = provider.get_tracer("test")

    def work(number):
        with tracer.start_as_current_span(f"task {number}"), conn.cursor() as cur:
            cur.execute("select pg_sleep(0.01), %s", (number,))
            return cur.fetchone()[1]

    found = [job.result() for job in [Job(current(), work, (n,)) for n in range(8)]]

    tasks = {span.context.span_id for span in spans() if span.name.startswith("task")}
    parents = [span.parent.span_id for span in spans() if span.name == "select"]
    assert found == [*range(8)]
    assert len(parents) == 8
    assert {*parents} == tasks


def test_error_and_deadline_are_on_the_span(conn, spans):
    with conn.cursor() as cur:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            cur.execute("select * from no_such_table")
        with pytest.raises(greenpg.DeadlineExceeded), conn.deadline(0.1):
            cur.execute("select pg_sleep(9)")
        cur.execute("select 1")

    kinds = [[event.attributes["exception.type"] for event in span.events] for span in spans()]
    assert [len(names) for names in kinds] == [1, 1, 0]
    assert kinds[0][0].endswith("UndefinedTable")
    assert kinds[1][0].endswith("DeadlineExceeded")


def test_kill_ends_the_span_and_leaves_the_connection_usable(conn, spans):
    backend = current()
    sleeping = Job(backend, lambda: conn.cursor().execute("select pg_sleep(9)"), ())
    while not conn._greenpg_state.in_driver:
        backend.sleep(0.002)

    sleeping.kill()
    sleeping.join()
    with conn.cursor() as cur:
        cur.execute("select 2")

    assert isinstance(sleeping.error, backend.exits)
    assert statements(spans) == ["select pg_sleep(9)", "select 2"]


def test_pool_lends_traced_connections(connect, dsn, spans):
    with greenpg.ConnectionPool(dsn, min_size=1, max_size=2) as pool:
        for _ in range(3):
            with pool.connection() as conn, conn.cursor() as cur:
                cur.execute("select 3")

    assert statements(spans) == ["select 3"] * 3


def test_listener_works_beside_it(connect, dsn):
    with greenpg.Listener(dsn) as listener, listener.subscribe("traced") as subscription:
        with closing(connect()) as conn:
            conn.autocommit = True
            conn.cursor().execute("notify traced, 'hello'")

        (note,) = itertools.islice(subscription, 1)

    assert getattr(note, "payload", note) == "hello"


def test_others_connections_stay_plain_without_a_patch(dsn, unpatched, instrumentor, provider):
    instrumentor.instrument(tracer_provider=provider)

    with closing(greenpg.connect(dsn)) as ours, closing(psycopg2.connect(dsn)) as theirs:
        assert isinstance(ours, greenpg.Connection)
        assert type(theirs) is c_connection


def test_backend_of_one_traced_connection_is_its_own(dsn, unpatched, instrumentor, provider):
    instrumentor.instrument(tracer_provider=provider)

    with closing(greenpg.connect(dsn, backend="threads")) as conn:
        assert conn._greenpg_state.backend.name == "threads"


def test_asynchronous_connection_is_traced(connect, spans):
    with closing(connect(async_=1)) as conn:
        greenpg.wait(conn)
        with conn.cursor() as cur:
            cur.execute("select 9")
            greenpg.wait(conn)
            row = cur.fetchone()

    assert row == (9,)
    assert statements(spans) == ["select 9"]


def test_comments_reach_the_server(dsn, unpatched, instrumentor, provider):
    unpatched()
    instrumentor.instrument(tracer_provider=provider, enable_commenter=True)

    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
        cur.execute("select query from pg_stat_activity where pid = pg_backend_pid()")
        query = cur.fetchall()[0][0]

    assert "/*db_driver='psycopg2" in query
    assert "traceparent=" in query


def test_uninstrumented_connections_are_green_and_untraced(connect, instrumentor, spans):
    instrumentor.uninstrument()

    with closing(connect()) as conn, conn.cursor() as cur:
        cur.execute("select 4")

    assert isinstance(cur, greenpg.Cursor)
    assert spans() == ()


def test_single_connection_is_traced_until_no_longer_wanted(dsn, unpatched, provider, spans):
    with closing(greenpg.connect(dsn)) as conn:
        Psycopg2Instrumentor.instrument_connection(conn, tracer_provider=provider)
        conn.cursor().execute("select 5")
        Psycopg2Instrumentor.uninstrument_connection(conn)
        conn.cursor().execute("select 6")

        assert isinstance(conn.cursor(), greenpg.Cursor)

    assert statements(spans) == ["select 5"]


@pytest.mark.parametrize("module", [psycopg2, greenpg], ids=lambda module: module.__name__)
def test_proxies_of_the_general_instrumentation_trace_and_break_no_pool(
    dsn, unpatched, provider, spans, module
):
    unpatched()
    dbapi.trace_integration(module, "connect", "postgresql", ATTRIBUTES, provider)

    try:
        with closing(module.connect(dsn)) as conn, conn.cursor() as cur:
            cur.execute("select 7")
            row = cur.fetchone()
        with greenpg.ConnectionPool(dsn, min_size=1) as pool, pool.connection() as conn:
            conn.cursor().execute("select 8")
    finally:
        dbapi.unwrap_connect(module, "connect")

    assert row == (7,)
    assert statements(spans)[:1] == ["select 7"]
