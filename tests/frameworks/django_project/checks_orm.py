"""Typical uses of Django in green threads; each checks file runs in processes of its own."""

import io
import uuid
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from greenpg.backend import current
from greenpg_conformance.toolkit.heartbeat import heartbeat
from greenpg_conformance.toolkit.jobs import Job

from . import ready  # before the models
from .models import Account, Note
from .served import get


def in_tasks(*functions):
    return [Job(current(), function, ()) for function in functions]


def execute(statement):
    with connection.cursor() as cur:
        cur.execute(statement)
        return cur.fetchone()[0]


def balances():
    return dict(Account.objects.values_list("name", "balance"))


def test_backend_is_called_postgresql():
    assert (connection.vendor, connection.display_name) == ("postgresql", "PostgreSQL")
    assert connection.pg_version > 100000


def test_requests_run_side_by_side(observer):
    def request():
        return get("/execute/", sql="select 1 from pg_advisory_lock_shared(6)")

    execute("select pg_advisory_lock(6)")
    jobs = in_tasks(*[request] * 8)
    observer.until_running(8, "pg_advisory_lock_shared")
    execute("select pg_advisory_unlock(6)")

    assert [job.result() for job in jobs] == ["1"] * 8


def test_a_slow_query_holds_nobody_up():
    with heartbeat(current()):
        jobs = in_tasks(*[lambda: get("/execute/", sql="select pg_sleep(0.2)")] * 5)
        for job in jobs:
            job.result()


def test_atomic_commits_and_rolls_back():
    with transaction.atomic():
        Account.objects.filter(name="ann").update(balance=1)
    with suppress(KeyError), transaction.atomic():
        Account.objects.filter(name="bob").update(balance=2)
        raise KeyError

    assert balances() == {"ann": 1, "bob": 100}


def test_savepoint_is_rolled_back_alone():
    with transaction.atomic():
        Account.objects.filter(name="ann").update(balance=1)
        with pytest.raises(IntegrityError), transaction.atomic():
            Account.objects.create(name="ann")
        Account.objects.filter(name="bob").update(balance=2)

    assert balances() == {"ann": 1, "bob": 2}


def test_on_commit_runs_after_the_commit_alone():
    seen = []

    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(balances()["ann"]))
        Account.objects.filter(name="ann").update(balance=1)
        before = list(seen)

    assert (before, seen) == ([], [1])


def test_every_task_has_a_transaction_of_its_own(observer):
    def deposit():
        with transaction.atomic():
            account = Account.objects.select_for_update().get(name="ann")
            execute("select pg_sleep(0.01)")
            account.balance += 1
            account.save()

    for job in in_tasks(*[deposit] * 8):
        job.result()

    assert balances()["ann"] == 108


def test_iterator_reads_with_a_cursor_in_the_server():
    Account.objects.bulk_create(Account(name=f"n{number}") for number in range(500))

    rows = Account.objects.order_by("id").iterator(chunk_size=50)
    first = next(rows)
    cursors = execute("select count(*) from pg_cursors where name like '_django_curs_%'")
    rest = list(rows)

    assert (first.name, cursors, len(rest)) == ("ann", 1, 501)


def test_iterator_reads_inside_a_transaction():
    with transaction.atomic():
        names = {account.name for account in Account.objects.iterator(chunk_size=1)}

    assert names == {"ann", "bob"}


@pytest.mark.skipif(not ready.is_psycopg3, reason="psycopg 3's")
def test_copy_goes_through_the_cursor():
    table = Account._meta.db_table
    with connection.cursor() as cur:
        with cur.copy(f"copy {table} (name, balance) from stdin") as copy:
            for number in range(1000):
                copy.write_row((f"copied{number}", number))
        with cur.copy(f"copy (select max(balance) from {table}) to stdout") as copy:
            back = b"".join(copy)

    assert Account.objects.count() == 1002
    assert back == b"999\n"


@pytest.mark.skipif(ready.is_psycopg3, reason="psycopg2's")
def test_copy_goes_through_copy_expert():
    table = Account._meta.db_table
    with connection.cursor() as cur:
        lines = io.StringIO("".join(f"copied{number}\t{number}\n" for number in range(1000)))
        cur.copy_expert(f"copy {table} (name, balance) from stdin", lines)
        back = io.StringIO()
        cur.copy_expert(
            f"copy (select balance from {table} order by id desc limit 1) to stdout", back
        )

    assert Account.objects.count() == 1002
    assert back.getvalue() == "999\n"


def test_values_survive_a_round_trip():
    note = Note(
        id=uuid.uuid4(),
        about={"a": [1, None, "ü"], "nested": {"b": 1.5}},
        at=datetime(2026, 7, 1, 12, 30, tzinfo=timezone.utc),
        amount=Decimal("12.34"),
        body=bytes(range(256)),
    )

    note.save()
    found = Note.objects.get(id=note.id, about__nested__b=1.5)

    assert (found.about, found.at, found.amount) == (note.about, note.at, note.amount)
    assert bytes(found.body) == note.body


def test_session_speaks_utc():
    assert get("/execute/", sql="show timezone") == "UTC"


def test_request_after_a_lost_connection_works(observer):
    get("/balance/ann/")
    Account.objects.count()
    observer.end_sessions()
    with pytest.raises(OperationalError):
        Account.objects.count()

    assert get("/balance/ann/") == "100"
