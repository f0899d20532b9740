"""Engines on greenpg, and on psycopg2 after the patch."""

from __future__ import annotations

import psycopg
import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy import ForeignKey, MetaData, create_engine, event, exc, insert, select, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)
from sqlalchemy.pool import NullPool, QueuePool

import greenpg
from greenpg import psycopg3
from greenpg.backend import current
from greenpg.sqlalchemy import GreenQueuePool
from greenpg_conformance.toolkit.heartbeat import heartbeat

from .conftest import ask, pid


@pytest.fixture
def models(dsn, schema, make):
    """Two mapped classes whose tables exist."""

    class Base(DeclarativeBase):
        metadata = MetaData(schema=schema)

    class Author(Base):
        __tablename__ = "author"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        books: Mapped[list[Book]] = relationship(back_populates="author")

    class Book(Base):
        __tablename__ = "book"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
        author: Mapped[Author] = relationship(back_populates="books")

    admin = make()
    Base.metadata.create_all(admin)
    yield Author, Book
    Base.metadata.drop_all(admin)
    Base.registry.dispose()


@pytest.mark.parametrize(
    ("name", "dbapi", "kind"),
    [("greenpg", greenpg, greenpg.Connection), ("greenpg3", psycopg, psycopg3.Connection)],
)
def test_the_url_names_greenpg_and_its_pool(dsn, name, dbapi, kind):
    engine = create_engine(f"postgresql+{name}://", connect_args=parse_dsn(dsn))

    with engine.connect() as conn:
        assert isinstance(conn.connection.driver_connection, kind)
    engine.dispose()

    assert engine.dialect.driver == name
    assert engine.dialect.dbapi is dbapi
    assert type(engine.pool) is GreenQueuePool


def test_a_backend_is_a_connect_argument(make):
    engine = make(connect_args={"backend": "threads"})

    with engine.connect() as conn:
        raw = conn.connection.driver_connection
        assert (ask(conn), raw._greenpg_state.backend.name) == (1, "threads")


@pytest.mark.parametrize("pool", [QueuePool, NullPool])
def test_sqlalchemys_own_pools_work(make, pool):
    engine = make(poolclass=pool)

    with engine.connect() as conn:
        assert ask(conn) == 1


@pytest.mark.green
def test_other_tasks_run_during_connects_and_queries(driver, make, spawn, gate):
    engine = make(driver, pool_size=4, max_overflow=0)

    def wait():
        with engine.connect() as conn:
            ask(conn, gate.sql)
            return pid(conn)

    with heartbeat(current()):
        jobs = [spawn(wait) for _ in range(4)]
        gate.wait_for(4)
        gate.open()
        seen = {job.result() for job in jobs}

    assert len(seen) == 4


def test_sessions_of_many_tasks_keep_to_themselves(driver, make, models, spawn):
    author, book = models
    engine = make(driver, pool_size=3, max_overflow=0)

    def write(number):
        with Session(engine) as session, session.begin():
            titles = [f"{number}.{volume}" for volume in range(3)]
            session.add(author(name=str(number), books=[book(title=title) for title in titles]))

    for job in [spawn(write, number) for number in range(12)]:
        job.result()

    with Session(engine) as session:
        found = session.scalars(select(author).options(selectinload(author.books))).all()
        assert len(found) == 12
        for one in found:
            assert {title.title for title in one.books} == {f"{one.name}.{n}" for n in range(3)}


def test_an_error_rolls_back_to_the_savepoint(driver, make, models):
    author, _ = models
    engine = make(driver)

    with Session(engine) as session, session.begin():
        session.add(author(id=1, name="ann"))
        session.flush()
        with pytest.raises(exc.IntegrityError), session.begin_nested():
            session.execute(insert(author).values(id=1, name="bob"))

    with Session(engine) as session:
        assert session.scalars(select(author.name)).all() == ["ann"]


def test_insertmanyvalues_returns_keys_in_order(driver, make, models):
    author, _ = models
    engine = make(driver)
    names = [f"author {number}" for number in range(2500)]

    with Session(engine) as session, session.begin():
        made = [author(name=name) for name in names]
        session.add_all(made)
        session.flush()
        keys = [one.id for one in made]
        found = session.scalars(select(author.name).order_by(author.id)).all()

    assert found == names
    assert keys == sorted(keys)


def test_yield_per_streams_through_a_named_cursor(driver, make):
    engine = make(driver)

    with engine.connect() as conn:
        query = text("select generate_series(1, 1000)")
        result = conn.execute(query, execution_options={"yield_per": 100})
        name = result.cursor.name
        parts = [len(part) for part in result.partitions(100)]

    assert name
    assert parts == [100] * 10


@pytest.mark.green
def test_other_tasks_run_while_a_large_result_is_read(driver, make):
    engine = make(driver)

    with engine.connect() as conn, heartbeat(current()):
        stream = conn.execution_options(stream_results=True).execute(
            text("select generate_series(1, 50000)")
        )
        total = sum(number for (number,) in stream)

    assert total == 50000 * 50001 // 2


def test_two_phase_transactions(driver, make, create):
    engine = make(driver)
    table = create("(n int)")
    with engine.connect() as conn:
        kept = conn.begin_twophase()
        conn.execute(text(f"insert into {table} values (1)"))
        kept.prepare()
        with engine.connect() as other:
            assert kept.xid in other.recover_twophase()
        kept.commit()
        lost = conn.begin_twophase()
        conn.execute(text(f"insert into {table} values (2)"))
        lost.prepare()
        lost.rollback()

        assert conn.execute(text(f"select n from {table}")).scalars().all() == [1]
        conn.rollback()
        assert conn.recover_twophase() == []


def test_events_of_statements_fire(driver, make):
    engine = make(driver)
    seen = []
    event.listen(engine, "before_cursor_execute", lambda *given: seen.append(("before", given[2])))
    event.listen(engine, "after_cursor_execute", lambda *given: seen.append(("after", given[2])))

    with engine.connect() as conn:
        ask(conn, "select 17")

    assert seen[-2:] == [("before", "select 17"), ("after", "select 17")]


def test_isolation_levels(driver, make):
    engine = make(driver)
    level = "show transaction_isolation"

    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        assert ask(conn, level) == "serializable"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        assert conn.connection.driver_connection.autocommit
    with engine.connect() as conn:
        assert ask(conn, level) == "read committed"
        assert not conn.connection.driver_connection.autocommit


def test_a_deadline_of_greenpgs_leaves_the_connection_in_the_pool(engine):
    with engine.connect() as conn:
        before = pid(conn)
        raw = conn.connection.driver_connection
        with pytest.raises(exc.OperationalError), raw.deadline(0.05):
            ask(conn, "select pg_sleep(10)")
        conn.rollback()

        assert pid(conn) == before
