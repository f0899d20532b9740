"""OPTIONS["pool"]: one greenpg pool for all tasks of the process."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, connections, transaction
from django.test import override_settings

from greenpg.backend import current
from greenpg_conformance.toolkit.jobs import Job

from . import ready  # before the models
from .models import Account
from .served import get


@pytest.fixture
def database():
    """The settings of the only database, restored after the test."""
    settings = connections.settings["default"]
    kept = {**settings, "OPTIONS": {**settings["OPTIONS"]}}
    yield settings
    connection.close()
    connection.close_pool()
    settings.update(kept)


@pytest.fixture
def small_pool(database):
    """A pool of at most two connections."""
    database["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 2, "timeout": 5}


def execute(statement):
    with connection.cursor() as cur:
        cur.execute(statement)
        return cur.fetchone()[0] if cur.description else None


def available():
    return connection.pool.get_stats()["pool_available"]


def test_requests_of_many_tasks_share_few_sessions(small_pool, observer):
    def request():
        return int(get("/execute/", sql="select pg_backend_pid() from pg_sleep(0.01)"))

    jobs = [Job(current(), request, ()) for _ in range(20)]
    pids = {job.result() for job in jobs}

    assert len(pids) <= 2
    assert observer.sessions() == connection.pool.get_stats()["pool_size"] <= 2


def test_request_gives_its_connection_back():
    get("/balance/ann/")

    assert connection.connection is None
    assert connection.pool.get_stats()["pool_size"] == available() == 1


def test_task_that_ends_without_closing_gives_its_connection_back(small_pool, observer):
    jobs = [Job(current(), Account.objects.count, ()) for _ in range(6)]

    assert [job.result() for job in jobs] == [2] * 6
    del jobs
    observer.until(lambda: available() == connection.pool.get_stats()["pool_size"], "all back")


def test_open_transaction_of_an_ended_task_is_rolled_back(small_pool, observer):
    def careless():
        connection.set_autocommit(False)
        Account.objects.update(balance=0)

    Job(current(), careless, ()).result()

    observer.until_quiet()
    assert get("/balance/ann/") == "100"
    connection.close()


def test_no_connection_in_time_is_an_operational_error(database, small_pool):
    database["OPTIONS"]["pool"]["timeout"] = 0.05
    held = [connection.pool.getconn() for _ in range(2)]

    with pytest.raises(OperationalError, match="no connection in"):
        Account.objects.count()

    for conn in held:
        connection.pool.putconn(conn)


def test_connection_is_configured_once(database):
    level = ready.IsolationLevel.REPEATABLE_READ
    database["OPTIONS"].update(isolation_level=level, assume_role="pg_monitor")
    asked = (
        "current_setting('TimeZone') || current_user || current_setting('transaction_isolation')"
    )
    with transaction.atomic():
        first = execute(f"select {asked}")
    connection.close()

    execute("set timezone to 'Asia/Tokyo'")
    connection.close()

    assert first == "UTCpg_monitorrepeatable read"
    assert execute("show timezone") == "Asia/Tokyo"  # else each request would cost a round trip


def test_reset_discard_brings_a_session_back_to_its_settings(database):
    database["OPTIONS"].update(pool={"min_size": 1, "reset": "discard"}, assume_role="pg_monitor")
    execute("set timezone to 'Asia/Tokyo'")
    pid = execute("select pg_backend_pid()")
    connection.close()

    again = execute("select pg_backend_pid()")
    found = execute("show timezone"), execute("select current_user")

    assert (again, found) == (pid, ("UTC", "pg_monitor"))


def test_json_is_left_to_the_field_on_every_loan():
    for _ in range(3):
        assert execute("select '{\"a\": 1}'::jsonb") == '{"a": 1}'
        connection.close()


def test_dead_connections_are_replaced_unseen(observer):
    Account.objects.count()
    connection.close()
    observer.end_sessions()

    assert Account.objects.count() == 2


@pytest.mark.parametrize(("checks", "asked"), [(True, 1), (False, 0)])
def test_health_checks_ask_before_each_loan(database, observer, checks, asked):
    database["CONN_HEALTH_CHECKS"] = checks
    Account.objects.count()
    connection.close()

    conn = connection.pool.getconn()
    connection.pool.putconn(conn)

    assert observer.sessions(query="select 1") == asked


def test_other_settings_get_another_pool(database):
    first = connection.pool
    database["OPTIONS"]["application_name"] = "another"
    second = connection.pool

    assert first is not second
    assert second is connection.pool
    assert execute("show application_name") == "another"


def test_pool_of_former_settings_keeps_no_session(database):
    former = connection.pool
    database["OPTIONS"]["application_name"] = "another"
    Account.objects.count()

    assert former.get_stats()["pool_min"] == 0  # otherwise it would go on connecting


def test_pool_of_former_settings_serves_those_who_wait_and_keeps_nothing(
    small_pool, database, observer
):
    former = connection.pool
    held = [former.getconn() for _ in range(2)]
    job = Job(current(), execute, ("select 6 * 7",))
    observer.until(lambda: former.get_stats()["requests_waiting"] == 1, "one waits")
    database["OPTIONS"]["application_name"] = "another"
    assert connection.pool is not former

    for conn in held:
        former.putconn(conn)

    assert job.result() == 42
    observer.until(lambda: former.get_stats()["pool_size"] == 0, "nothing is kept")


def test_new_time_zone_reaches_new_connections(observer):
    Account.objects.count()
    before = connection.pool
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        inside = execute("show timezone")
        connection.close()
        again = execute("show timezone")
    connection.close()

    assert (inside, again, execute("show timezone")) == ("Asia/Tokyo", "Asia/Tokyo", "UTC")
    connection.close()
    assert before is not connection.pool
    observer.until(lambda: observer.sessions() == 1, "older pools have let go")


def test_close_pool_spares_what_this_task_holds(observer):
    with transaction.atomic():
        Account.objects.filter(name="ann").update(balance=1)
        connection.close_pool()
        Account.objects.filter(name="bob").update(balance=1)
    connection.close()

    observer.until(lambda: observer.sessions() == 0, "the session has ended")
    assert get("/balance/bob/") == "1"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"CONN_MAX_AGE": 60}, "Pooling doesn't support persistent connections."),
        ({"CONN_MAX_AGE": None}, "Pooling doesn't support persistent connections."),
        (
            {"OPTIONS": {"pool": 5}},
            r"DATABASES\['default'\]\['OPTIONS'\]\['pool'\] is 5; give True",
        ),
        ({"OPTIONS": {"pool": {"maxsize": 5}}}, r"\['pool'\]: .* keyword argument 'maxsize'"),
        ({"OPTIONS": {"pool": {"min_size": 5, "max_size": 2}}}, r"\['pool'\]: .*max_size"),
        ({"OPTIONS": {"pool": {"kwargs": {}, "driver": "psycopg"}}}, "Django sets driver, kwargs"),
        (
            {"OPTIONS": {"pool": True, "isolation_level": 9}},
            "Invalid transaction isolation level 9",
        ),
        ({"NAME": ""}, "Please supply the NAME"),
    ],
)
def test_wrong_settings_are_one_clear_error(database, change, text):
    database.update(change)

    with pytest.raises(ImproperlyConfigured, match=text):
        Account.objects.count()


def test_test_databases_come_and_go_with_a_live_pool(database, observer):
    name = database["NAME"]
    Account.objects.count()
    creation = connection.creation
    database["TEST"].update(NAME="greenpg_copy", TEMPLATE=name)
    try:
        creation.create_test_db(verbosity=0, autoclobber=True)
        copied = execute("select current_database()"), Account.objects.count()
        creation.clone_test_db("1", verbosity=0, autoclobber=True)
        Account.objects.count()
        creation.destroy_test_db(verbosity=0, suffix="1")
    finally:
        Account.objects.count()
        creation.destroy_test_db(name, verbosity=0)
        database["TEST"].update(NAME=None, TEMPLATE=None)

    assert copied == ("greenpg_copy", 2)
    assert (database["NAME"], Account.objects.count()) == (name, 2)
    assert not observer.ask("select 1 from pg_database where datname like 'greenpg_copy%%'")
