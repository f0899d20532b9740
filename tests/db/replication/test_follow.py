"""`follow`: a slot consumed across lost connections."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import greenpg
from greenpg.extras import (
    StopReplication,
)
from tests.db.conftest import until
from tests.db.replication.conftest import inserted


@pytest.fixture
def follow(dsn, source):
    """`greenpg.replication.follow` for the slot."""

    def followed(each, **options):
        return greenpg.replication.follow(dsn, source.slot, each, options=source.options, **options)

    return followed


def collector(rows, last, between=lambda row: None):
    def each(message):
        row = inserted(message)
        if row is not None:
            rows.append(row)
            between(row)
            if row == last:
                raise StopReplication

    return each


def test_follow_connects_again_when_the_server_is_lost(source, follow, caplog):
    rows: list[str] = []

    def cut(row):
        if rows.count(row) == 1:
            source.ask("select pg_terminate_backend(%s)", source.fact("active_pid"))
            source.insert(str(int(row) + 1))

    source.insert("1")
    follow(collector(rows, "4", cut))

    assert list(dict.fromkeys(rows)) == ["1", "2", "3", "4"]
    assert sorted(rows) == rows
    assert "trying again" in caplog.text


def test_follow_returns_what_was_confirmed(source, follow):
    source.insert("one", "two")

    position = follow(collector([], "two"))

    assert source.fact("active") is False
    assert source.fact(f"confirmed_flush_lsn - '0/0' = {position}")


def test_follow_leaves_confirming_to_the_consumer(source, follow):
    rows: list[str] = []
    source.insert("one", "two")

    follow(collector(rows, "two"), confirm=False)
    follow(collector(rows, "two"), confirm=False)

    assert rows == ["one", "two", "one", "two"]


def test_follow_raises_what_the_consumer_raises(source, follow):
    error = greenpg.OperationalError("the consumer's own")
    source.insert("one")

    def fail(message):
        raise error

    with pytest.raises(greenpg.OperationalError) as caught:
        follow(fail)

    assert caught.value is error
    assert source.fact("active") is False


def test_follow_raises_what_connecting_again_cannot_mend(db, dsn, source, follow):
    def sabotage(message):
        source.ask("select pg_terminate_backend(%s)", source.fact("active_pid"))
        until(lambda: not source.fact("active"), "the slot is free")
        source.ask("select pg_drop_replication_slot(%s)", source.slot)

    source.insert("one")
    with pytest.raises(db.errors.UndefinedObject):
        follow(sabotage)
    with pytest.raises(db.OperationalError):
        greenpg.replication.follow(f"{dsn} port=1", source.slot, print)


def test_follow_has_a_limited_patience(db, source, proxy):
    def cut(message):
        proxy.refuse()
        proxy.cut()

    source.insert("one")

    with pytest.raises(db.OperationalError, match="refused"):
        greenpg.replication.follow(
            proxy.dsn, source.slot, cut, options=source.options, patience=0.2
        )


@pytest.mark.green
def test_killed_follower_leaves_nothing(source, follow, spawn):
    seen = SimpleNamespace(message=False)

    def each(message):
        seen.message = True

    source.insert("one")
    job = spawn(follow, each)
    until(lambda: seen.message, "it follows")

    job.kill()
    job.join()

    until(lambda: source.fact("active") is False, "the slot is free")
