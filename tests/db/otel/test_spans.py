"""Spans of what instrumentations of DB-API cursors do not see."""

from __future__ import annotations

import io
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

import greenpg
from greenpg import otel, psycopg3
from greenpg.backend import current
from greenpg.multiplexer import Multiplexer
from greenpg_conformance.toolkit.jobs import Job

EMPTY = "copy (select 1 where false) to stdout"
NUMBERS = "copy (select generate_series(1, 3)) to stdout"


@pytest.fixture
def mux(dsn):
    made = Multiplexer(dsn, timeout=5.0)
    yield made
    made.close(0)


def place(conn):
    info = conn.info
    return {"db.namespace": info.dbname, "server.address": info.host, "server.port": info.port}


def test_copy_block_has_a_span_of_its_connection(either, spans):
    with either.cursor().copy(NUMBERS) as copy:
        rows = [*copy.rows()]

    span = spans.only()
    assert rows == [("1",), ("2",), ("3",)]
    assert span.name == f"COPY {either.info.dbname}"
    assert span.kind.name == "CLIENT"
    assert span.status.status_code.name == "UNSET"
    assert span.instrumentation_scope.name == "greenpg"
    assert dict(span.attributes) == {
        "db.system.name": "postgresql",
        "db.operation.name": "COPY",
        **place(either),
    }


def test_span_lasts_as_long_as_the_block(either, spans):
    with either.cursor().copy(NUMBERS) as copy:
        list(copy)
        before = spans.ended()

    assert before == []
    assert spans.only().end_time is not None


def test_copies_of_files_have_spans(conn, create, spans):
    table, cur, out = create("(n int)"), conn.cursor(), io.StringIO()
    cur.execute(f"set search_path to {table.partition('.')[0]}")
    name = table.partition(".")[2]

    cur.copy_from(io.StringIO("1\n"), name)
    cur.copy_expert(f"copy {name} from stdin", file=io.StringIO("2\n"))
    cur.copy_to(out, table=name)

    assert out.getvalue() == "1\n2\n"
    by_table = f"COPY {name}"
    found = spans.ended()
    assert [span.name for span in found] == [by_table, f"COPY {conn.info.dbname}", by_table]
    tables = [span.attributes.get("db.collection.name") for span in found]
    assert tables == [name, None, name]


def test_pipeline_has_a_span_with_its_size(auto, spans):
    with auto.pipeline() as pipeline:
        results = [pipeline.execute("select %s", (n,)) for n in range(3)]
        pipeline.sync()

    span = spans.only()
    assert [result.fetchone() for result in results] == [(0,), (1,), (2,)]
    assert span.name == f"PIPELINE {auto.info.dbname}"
    assert span.attributes["db.operation.batch.size"] == 3
    assert span.attributes["server.port"] == auto.info.port


def test_pipeline_of_psycopg_3_has_one_span_with_those_inside(dsn, spans):
    with psycopg3.connect(dsn) as conn:
        with conn.pipeline(), conn.transaction(), conn.pipeline():
            cur = conn.execute("select 1")
            row = cur.fetchone()

        assert row == (1,)
        assert spans.only().name == f"PIPELINE {conn.info.dbname}"


def test_large_object_has_spans_of_what_reaches_the_server(conn, spans, tmp_path):
    file = tmp_path / "loaded"
    file.write_bytes(b"0123456789" * 100)

    made = conn.lobject(0, "wb", 0, str(file))
    made.write(b"abc")
    made.truncate(500)
    with conn.lobject(made.oid, "rb") as again:
        read = [again.read(100) for _ in range(5)]
        rest = again.readinto(bytearray(10))
    again.export(str(file))
    made.unlink()
    conn.lobject().unlink()

    assert (b"".join(read)[3:500], rest) == ((b"0123456789" * 50)[3:], 0)
    names = [span.attributes["db.operation.name"] for span in spans.ended()]
    reads = [name for name in names if name == "lo_read"]
    assert len(reads) < 6  # the others are served from what was read ahead
    assert list(dict.fromkeys(names)) == [
        "lo_import", "lo_write", "lo_truncate", "lo_open", "lo_read", "lo_export", "lo_unlink",
        "lo_create",
    ]  # fmt: skip


def test_statements_of_a_multiplexer_have_spans(mux, conn, spans):
    mux.execute("select 1")
    mux.execute("  (select %s)", (2,))
    mux.execute(sql.SQL("select {}").format(sql.Literal("it's")))
    results = mux.executemany("values (%s)", iter([(1,), (2,), (3,)]))
    mux.executemany("values (%s)", [(4,)])

    found = spans.ended()
    assert [result.fetchone() for result in results] == [(1,), (2,), (3,)]
    names = ["SELECT", "SELECT", "SELECT", "BATCH VALUES", "VALUES"]
    assert [span.name for span in found] == names
    assert [span.attributes["db.query.summary"] for span in found] == names
    sizes = [span.attributes.get("db.operation.batch.size") for span in found]
    assert sizes == [None, None, None, 3, None]
    assert not any("db.query.text" in span.attributes for span in found)
    for span in found:
        assert place(conn).items() <= dict(span.attributes).items()


def test_statement_that_begins_with_no_command_names_no_span(mux, conn, spans):
    mux.execute("select 1")
    with pytest.raises(psycopg2.errors.SyntaxError):
        mux.execute("s3cret")

    assert [span.name for span in spans.ended()] == ["SELECT", conn.info.dbname]


def test_error_is_on_the_span_without_its_text(either, create, spans):
    table = create("(n int check (n > 0))")

    with (
        pytest.raises(Exception, match="violates"),
        either.cursor().copy(f"copy {table} from stdin") as copy,
    ):
        copy.write_row((-77,))

    span = spans.only()
    assert span.status.status_code.name == "ERROR"
    assert span.status.description is None
    assert span.events == ()
    assert span.attributes["db.response.status_code"] == "23514"
    assert span.attributes["error.type"] == "23514"
    assert "-77" not in span.to_json()
    assert table not in span.to_json()


@pytest.mark.parametrize("query", ["select from", "copy nothing to stdout"])
def test_copy_that_does_not_begin_ends_its_span(either, spans, query):
    with pytest.raises((greenpg.Error, psycopg3.Connection.Error)), either.cursor().copy(query):
        pytest.fail("it has begun")

    assert spans.only().status.status_code.name == "ERROR"


def test_programs_error_is_raised_unchanged_and_named(either, spans):
    error = KeyError("x")

    with pytest.raises(KeyError) as raised, either.cursor().copy(NUMBERS):
        raise error

    assert raised.value is error
    assert spans.only().attributes["error.type"] == "builtins.KeyError"


def test_texts_are_there_if_wanted_but_no_parameters(either, spans):
    otel.instrument(tracer_provider=spans.provider, query_text=True)

    with either.cursor().copy("copy (select %s::text) to stdout", ("s3cret",)) as copy:
        list(copy)

    span = spans.only()
    assert span.attributes["db.query.text"] == "copy (select %s::text) to stdout"
    assert "s3cret" not in span.to_json()


def test_texts_of_pipelines_and_multiplexers_are_there_if_wanted(auto, mux, spans):
    otel.instrument(tracer_provider=spans.provider, query_text=True)

    with auto.pipeline() as pipeline:
        pipeline.execute("select %s", (1,))
        pipeline.execute(sql.SQL("table {}").format(sql.Identifier("pg_am")))
        pipeline.execute("select %s", (2,))
        pipeline.execute(b"select 4")
    with pytest.raises(psycopg2.errors.UndefinedTable):
        mux.execute("select from no_such_table where n = %s", ("s3cret",))

    pipeline, failed = spans.ended()
    texts = 'select %s; table "pg_am"; select 4'
    assert pipeline.attributes["db.query.text"] == texts
    assert failed.attributes["db.query.text"] == "select from no_such_table where n = %s"
    assert "no_such_table" in failed.status.description
    assert failed.events[0].attributes["exception.type"].endswith("UndefinedTable")


def test_generator_that_is_left_ends_its_span_once_and_without_an_error(either, spans, caplog):
    def rows():
        with either.cursor().copy("copy (select generate_series(1, 99999)) to stdout") as copy:
            yield from copy.rows()

    running = rows()
    first = next(running)
    running.close()

    assert first == ("1",)
    assert spans.only().status.status_code.name == "UNSET"
    assert caplog.text == ""  # OpenTelemetry warns of a span that is ended twice


def test_block_that_is_never_left_ends_its_span(auto, spans):
    auto.cursor().copy(NUMBERS).__enter__()

    assert spans.only().name.startswith("COPY")


def test_block_is_still_the_drivers(auto, spans):
    copy = auto.cursor().copy(NUMBERS)

    with copy:
        rows = [*copy.rows()]

    assert rows == [("1",), ("2",), ("3",)]


def test_tasks_have_their_own_parents(dsn, mux, spans):
    conns: list[Any] = [greenpg.connect(dsn), psycopg3.connect(dsn)]

    def work(number):
        with spans.tracer.start_as_current_span(f"task {number}"):
            conn = conns[number % 2]
            mux.execute("select pg_sleep(0.01)")
            with conn.cursor().copy("copy (select pg_sleep(0.01)) to stdout") as copy:
                list(copy)
            mux.execute("select pg_sleep(0.01)")

    for job in [Job(current(), work, (n,)) for n in range(6)]:
        job.result()

    for conn in conns:
        conn.close()
    found = spans.ended()
    tasks = {span.context.span_id for span in found if span.name.startswith("task")}
    for name in ("COPY", "SELECT"):
        parents = [span.parent.span_id for span in found if span.name.startswith(name)]
        assert {*parents} == tasks
        assert len(parents) == (6 if name == "COPY" else 12)


def test_users_classes_are_traced(dsn, spans):
    class Mine(psycopg2.extensions.cursor):
        pass

    with greenpg.connect(dsn) as conn:
        conn.cursor(cursor_factory=Mine).copy_expert(EMPTY, io.StringIO())
    conn.close()

    assert spans.only().name.startswith("COPY")


def methods():
    owners = (
        greenpg.Cursor, greenpg.Connection, greenpg.lobject.Lobject, Multiplexer,
        psycopg3.Cursor, psycopg3.Connection,
    )  # fmt: skip
    return [dict(vars(owner)) for owner in owners]


def test_instrumenting_is_undone_and_may_be_repeated(either, spans):
    otel.uninstrument()
    before = methods()

    otel.instrument(tracer_provider=spans.provider)
    otel.instrument(tracer_provider=spans.provider)
    with either.cursor().copy(NUMBERS) as copy:
        list(copy)
        otel.uninstrument()
        otel.uninstrument()
    with either.cursor().copy(NUMBERS) as copy:
        list(copy)

    assert len(spans.ended()) == 1
    assert methods() == before
