"""Without OPTIONS["pool"]: each task has a connection of its own, kept for CONN_MAX_AGE."""

import pytest
from django.db import connection, connections

from greenpg.backend import current
from greenpg_conformance.toolkit.jobs import Job

from . import ready  # noqa: F401  before the models
from .models import Account
from .served import get


@pytest.fixture
def kept():
    """Keep connections for a minute, as CONN_MAX_AGE does."""
    settings = connections.settings["default"]
    settings["CONN_MAX_AGE"] = 60
    yield settings
    settings.update(CONN_MAX_AGE=0, CONN_HEALTH_CHECKS=False)


def pid():
    return get("/execute/", sql="select pg_backend_pid()")


def test_there_is_no_pool():
    assert connection.pool is None


def test_connection_ends_with_its_request(observer):
    get("/balance/ann/")

    assert connection.connection is None
    observer.until(lambda: observer.sessions() == 0, "no session")


def test_connection_is_kept_from_request_to_request(kept):
    assert pid() == pid()


def test_kept_connection_ends_with_its_task(kept, observer):
    jobs = [Job(current(), pid, ()) for _ in range(4)]

    assert len({job.result() for job in jobs}) == 4
    observer.until(lambda: observer.sessions() == 0, "no session")


def test_health_check_replaces_a_lost_connection(kept, observer):
    kept["CONN_HEALTH_CHECKS"] = True
    get("/balance/ann/")
    observer.end_sessions()

    assert get("/balance/ann/") == "100"


def test_connection_that_tasks_share_outlives_the_one_that_made_it():
    wrapper = connections["default"]
    wrapper.inc_thread_sharing()
    try:
        Job(current(), wrapper.ensure_connection, ()).result()
        current().pause()  # callbacks at the end of the task have run
    finally:
        wrapper.dec_thread_sharing()

    assert wrapper.connection is not None
    assert Account.objects.count() == 2
    wrapper.close()


def test_values_of_the_backend_option_are_known():
    settings = connections.settings["default"]
    settings["OPTIONS"]["backend"] = "threads"
    try:
        count = Account.objects.count()
        waits = connection.connection._greenpg_state.backend.name
    finally:
        connection.close()
        del settings["OPTIONS"]["backend"]

    assert (count, waits) == (2, "threads")
