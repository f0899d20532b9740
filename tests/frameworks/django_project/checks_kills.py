"""Timeouts and kills inside Django's code: nothing is left half done or running."""

import random
from contextlib import ExitStack, suppress
from importlib import import_module

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Sum

from greenpg.backend import current
from greenpg_conformance.toolkit.jobs import Job
from greenpg_conformance.toolkit.proxy import Proxy

from . import ready  # noqa: F401  before the models
from .models import Account
from .served import get
from .views import move

ALLOWED = 0.1  # seconds, for statements that would take far longer
SLEEP = "select pg_sleep(20)"
SLOW_COMMIT = """
    create function slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(20); return null; end $$;
    create constraint trigger slow after insert on django_project_note
        deferrable initially deferred for each row execute function slow()
"""


def timeout(seconds):
    """Return a timeout of the green library that runs this process."""
    return import_module(current().name).Timeout(seconds)


def timeout_class():
    return import_module(current().name).Timeout


def exits():
    """Return the exceptions that a kill raises."""
    return tuple(current().exits)


def spawn(function, *args):
    return Job(current(), function, args)


def execute(statement):
    with connection.cursor() as cur:
        cur.execute(statement)
        return cur.fetchall() if cur.description else None


def balances():
    return dict(Account.objects.values_list("name", "balance"))


def all_back(observer):
    """Return True if no connection is lent; without a pool, if there is no session."""
    if connection.pool is None:
        return observer.sessions() == 0
    stats = connection.pool.get_stats()
    return stats["pool_size"] == stats["pool_available"] == observer.sessions()


def test_kill_in_a_view_commits_nothing(observer):
    job = spawn(get, "/transfer/ann/bob/10/?rest=20")
    observer.until_running(1, "pg_sleep")

    job.kill()
    job.join()

    assert isinstance(job.error, current().exits)
    observer.until(lambda: all_back(observer), "the connection is back")
    assert balances() == {"ann": 100, "bob": 100}


def test_kill_costs_a_pool_no_session(observer):
    if connection.pool is None:
        pytest.skip("for pools")
    pid = execute("select pg_backend_pid()")
    connection.close()
    job = spawn(get, "/transfer/ann/bob/10/?rest=20")
    observer.until_running(1, "pg_sleep")

    job.kill()
    job.join()

    observer.until(lambda: all_back(observer), "the connection is back")
    assert execute("select pg_backend_pid()") == pid


def test_timeout_propagates_unchanged_from_the_view(observer):
    with pytest.raises(timeout_class()) as caught, timeout(ALLOWED) as limit:
        get("/transfer/ann/bob/10/?rest=20")

    assert caught.value is limit
    assert (connection.in_atomic_block, connection.get_autocommit()) == (False, True)
    assert balances() == {"ann": 100, "bob": 100}


def test_timeout_swallowed_in_a_fetch_commits_nothing():
    def swallow():
        with transaction.atomic(), connection.cursor() as cur:
            Account.objects.update(balance=0)
            cur.execute("select n::text from generate_series(1, 1000000) n")
            with pytest.raises(timeout_class()), timeout(ALLOWED):
                cur.fetchall()

    with pytest.raises(DatabaseError, match="interrupted"):
        swallow()

    assert balances() == {"ann": 100, "bob": 100}


@pytest.fixture
def proxy(dsn, observer):
    """A proxy in front of the only database."""
    settings = connections.settings["default"]
    kept = {**settings}
    with Proxy(dsn) as found:
        settings.update(HOST="127.0.0.1", PORT=found.port)
        settings["OPTIONS"] = {**settings["OPTIONS"], "connect_timeout": 2}
        if connection.pool is not None:
            settings["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 2, "timeout": 2}
        yield found
        connection.close_pool()
    settings.update(kept)


def test_timeout_propagates_unchanged_if_the_server_is_unreachable(proxy, observer):
    with pytest.raises(timeout_class()) as caught, transaction.atomic():  # noqa: PT012
        execute("select 1")
        proxy.stall()
        with timeout(ALLOWED) as limit:
            execute(SLEEP)

    assert caught.value is limit
    proxy.flow()
    observer.end_sessions()  # no cancel request has reached the server
    assert execute("select 1") == [(1,)]
    connection.close()
    connection.close_pool()


def test_swallowed_timeout_bars_the_commit():
    with pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012  the claim is of the block
        move("ann", -10)
        with suppress(timeout_class()), timeout(ALLOWED):
            execute(SLEEP)
        move("bob", 10)

    assert balances() == {"ann": 100, "bob": 100}


def test_timeout_in_a_savepoint_undoes_the_savepoint_alone():
    with transaction.atomic():
        move("ann", -10)
        with suppress(timeout_class()), timeout(ALLOWED), transaction.atomic():
            move("bob", 1000)
            execute(SLEEP)
        move("bob", 10)

    assert balances() == {"ann": 90, "bob": 110}


def test_timeout_during_the_commit_leaves_a_usable_connection(observer):
    from .models import Note

    called = []
    execute(SLOW_COMMIT)
    try:
        with suppress(timeout_class()), timeout(ALLOWED), transaction.atomic():
            transaction.on_commit(lambda: called.append("first"))
            Note.objects.create()

        assert (connection.in_atomic_block, connection.get_autocommit()) == (False, True)
        assert Note.objects.count() == 0
        with transaction.atomic():
            transaction.on_commit(lambda: called.append("second"))
        assert called == ["second"]
    finally:
        execute("drop function slow cascade")
    connection.close()
    observer.until_quiet()


def test_kill_before_the_commit_is_sent_rolls_back(observer):
    held, ending, release = (current().event() for _ in range(3))
    holders = []

    def hold(conn):
        with conn.exclusive():
            held.set()
            release.wait()

    def transfer():
        with transaction.atomic():
            move("ann", -10)
            holders.append(spawn(hold, connection.connection))
            held.wait()
            ending.set()

    job = spawn(transfer)
    ending.wait()
    job.kill()
    current().pause()  # the kill arrives before the connection is free
    release.set()
    job.join()
    holders[0].join()

    assert isinstance(job.error, current().exits)
    assert balances() == {"ann": 100, "bob": 100}


@pytest.mark.parametrize(
    ("end", "own"),
    [("commit", None), ("commit", ZeroDivisionError), ("rollback", None)],
)
def test_timeout_before_the_end_of_a_transaction_is_sent_ends_it_nevertheless(observer, end, own):
    held, ended = current().event(), current().event()

    def hold(conn):
        with conn.exclusive():
            held.set()
            ended.wait(60)

    def transfer(stack):
        with transaction.atomic():
            move("ann", -10)
            holders.append(spawn(hold, connection.connection))
            held.wait()
            stack.enter_context(timeout_class()(ALLOWED, own))
            if end == "rollback":
                raise KeyError

    def transfer_and_go_on():
        with pytest.raises(own or timeout_class()), ExitStack() as stack:
            transfer(stack)
        left = connection.in_atomic_block, connection.get_autocommit()
        move("bob", 5)
        return left

    holders: list[Job] = []
    job = spawn(transfer_and_go_on)
    job.join(30)
    ended.set()
    holders[0].join()

    assert job.result() == (False, True)
    assert balances() == {"ann": 100, "bob": 105}


def test_kill_of_an_iterator_leaves_no_cursor(observer):
    Account.objects.bulk_create(Account(name=f"n{number}") for number in range(200))
    connection.close()

    def read_slowly():
        for account in Account.objects.iterator(chunk_size=10):
            if account.name == "n100":
                execute(SLEEP)

    job = spawn(read_slowly)
    observer.until_running(1, "pg_sleep")
    job.kill()
    job.join()
    observer.until(lambda: all_back(observer), "the connection is back")

    assert execute("select name from pg_cursors") == []


def test_kill_while_waiting_for_a_connection_keeps_the_others_going(observer):
    pool = connection.pool
    if pool is None:
        pytest.skip("for pools")
    held = [pool.getconn() for _ in range(pool.max_size)]
    waiting = [spawn(get, "/balance/ann/") for _ in range(3)]
    observer.until(lambda: pool.get_stats()["requests_waiting"] == 3, "all wait")

    waiting[1].kill()
    waiting[1].join()
    for conn in held:
        pool.putconn(conn)

    assert [waiting[0].result(), waiting[2].result()] == ["100", "100"]


@pytest.mark.parametrize("seed", range(3))
def test_storm_of_kills_loses_no_money_and_no_connection(observer, seed):
    chance = random.Random(seed)

    def transfers():
        for _ in range(50):
            get("/transfer/ann/bob/1/", rest=chance.choice([0, 0.001, 0.01]))

    for _ in range(10):
        jobs = [spawn(transfers) for _ in range(6)]
        for job in jobs:
            current().sleep(chance.random() * 0.03)
            job.kill()
        for job in jobs:
            assert isinstance(job.join().error, (type(None), *exits())), job.error

    observer.until(lambda: all_back(observer), "all connections are back")
    assert Account.objects.aggregate(total=Sum("balance"))["total"] == 200
    assert execute("show timezone") == [("UTC",)]
