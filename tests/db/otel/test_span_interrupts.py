"""An interrupt ends the span of an operation, and is raised unchanged."""

from __future__ import annotations

import io

import psycopg
import psycopg2
import pytest

from greenpg import otel
from greenpg.backend import current
from greenpg.multiplexer import Multiplexer
from tests.db.conftest import until

LONG = "select pg_sleep(600)"


class Stop(BaseException):
    pass


def copy_block(conn, statement):
    with conn.cursor().copy(f"copy ({statement}) to stdout") as copy:
        list(copy)


def copy_file(conn, statement):
    conn.cursor().copy_expert(f"copy ({statement}) to stdout", io.StringIO())


def pipeline(conn, statement):
    with conn.pipeline() as pipe:
        (pipe if hasattr(pipe, "execute") else conn).execute(statement)


OPERATIONS = [
    (psycopg2, copy_block), (psycopg2, copy_file), (psycopg2, pipeline),
    (psycopg, copy_block), (psycopg, pipeline),
]  # fmt: skip


@pytest.mark.parametrize(("driver", "operation"), OPERATIONS)
def test_deadline_ends_the_span(either, spans, operation):
    with pytest.raises(either.Error) as raised, either.deadline(0.05):
        operation(either, LONG)

    span = spans.only()
    assert type(raised.value).__name__ == "DeadlineExceeded"
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] in ("57014", "greenpg.errors.DeadlineExceeded")


@pytest.mark.green
@pytest.mark.parametrize(("driver", "operation"), OPERATIONS)
def test_kill_ends_the_span(either, spans, gate, spawn, operation):
    job = spawn(operation, either, gate.sql)
    gate.wait_for()

    job.kill()
    job.join()

    killed(job, spans.only())
    copy_block(either, "select 1")


def killed(job, span):
    kind = type(job.error)
    assert isinstance(job.error, current().exits)
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.green
def test_kill_ends_the_span_of_a_multiplexers_statement(dsn, spans, gate, spawn):
    with Multiplexer(dsn) as mux:
        job = spawn(mux.execute, gate.sql)
        gate.wait_for()

        job.kill()
        job.join()

        killed(job, spans.only())


@pytest.mark.green
def test_kill_while_another_task_has_the_connection_ends_the_span(conn, spans, gate, spawn):
    lobject = conn.lobject()
    spans.ended()
    holder = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    job = spawn(lobject.write, "x")
    until(lambda: job.began, "it waits")

    job.kill()
    job.join()

    killed(job, spans.only())
    gate.open()
    holder.result()


def test_exception_of_a_block_is_raised_as_the_same_object(either, spans):
    stop = Stop()

    with pytest.raises(Stop) as raised, either.cursor().copy("copy (select 1) to stdout"):
        raise stop

    assert raised.value is stop
    assert spans.only().attributes["error.type"] == f"{__name__}.Stop"


def test_exception_of_a_pipeline_is_raised_as_the_same_object(either, spans):
    stop = Stop()

    with pytest.raises(Stop) as raised, either.pipeline():
        raise stop

    assert raised.value is stop
    assert spans.only().attributes["error.type"] == f"{__name__}.Stop"


def test_exception_of_a_file_is_raised_as_the_same_object(auto, spans):
    class File(io.StringIO):
        def write(self, _):
            raise stop

    stop = Stop()

    with pytest.raises(Stop) as raised:
        auto.cursor().copy_expert("copy (select 1) to stdout", File())

    assert raised.value is stop
    assert spans.only().attributes["error.type"] == f"{__name__}.Stop"


def test_block_that_outlives_the_instrumentation_ends_its_span_with_the_error(either, spans):
    pipeline = either.pipeline()
    pipeline.__enter__()

    otel.uninstrument()
    pipeline.__exit__(Stop, Stop(), None)

    assert spans.only().status.status_code.name == "ERROR"
