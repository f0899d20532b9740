"""greenpg in Celery tasks, with the pools `-P gevent` and `-P eventlet`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Final

import pytest
from celery import Celery, Task
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from greenpg import ConnectionPool, ProgrammingError
from greenpg.celery import TaskConnection

from .watch import until
from .working.worker import ANSWER_SECONDS, Worker, answer

SIZE: Final = 4  # connections of the worker's pool
TASKS: Final = 30

pytestmark = pytest.mark.timeout(90)


class Calling(Task):  # type: ignore[misc]  # Celery is not typed
    """A class with a `__call__`: Celery pushes a second request for its tasks."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **options)


@pytest.fixture(scope="module", params=["gevent", "eventlet"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(backend: str, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(backend, dsn, tmp_path_factory.mktemp(f"celery-{backend}"))
    yield made
    made.close()


@pytest.fixture
def worker(shared: Worker) -> Iterator[Worker]:
    """The backend's worker; no test may leave a query or a lent connection behind in it."""
    yield shared
    until(lambda: shared.watch.busy() == 0, "no query runs")
    until(lambda: shared.lent() == 0, "all connections are back")
    assert sum(shared.watch.sessions().values()) <= SIZE


def answers(results: list[Any]) -> list[Any]:
    return [answer(result, propagate=False) for result in results]


def test_tasks_share_the_pool(worker):
    results = [worker.send("query", 0.1) for _ in range(TASKS)]

    assert answers(results) == [42] * TASKS


def test_failed_task_gives_its_connection_back(worker):
    results = [worker.send("fail") for _ in range(TASKS)]

    assert {str(outcome) for outcome in answers(results)} == {"the task fails"}


def test_connection_that_a_task_forgot_is_found(worker):
    """Not before the garbage collector runs: failed tasks are part of reference cycles."""
    results = [worker.send("forget") for _ in range(SIZE)]

    assert answers(results) == [42] * SIZE
    worker.ask("collect")


@pytest.mark.parametrize(("how", "outcome"), [("plain", "42"), ("failing", "the task fails")])
def test_task_connection_goes_back_with_the_task(worker, how, outcome):
    results = [worker.send("scoped", how) for _ in range(TASKS)]

    assert {str(answer) for answer in answers(results)} == {outcome}


def test_task_connection_goes_back_with_a_revoked_task(worker):
    results = [worker.send("scoped", "endless") for _ in range(SIZE)]
    until(lambda: worker.watch.busy() == SIZE, "the pool is used up")

    for result in results:
        worker.terminate(result)

    assert {type(outcome) for outcome in answers(results)} == {TaskRevokedError}
    until(lambda: worker.watch.busy() == 0, "the queries end")


def test_task_connection_is_refused_outside_a_task():
    db = TaskConnection(ConnectionPool(open=False))

    with pytest.raises(ProgrammingError, match="no Celery task is running"):
        db()


@pytest.mark.parametrize("base", [Task, Calling])
def test_task_delivered_twice_has_two_connections(dsn, base):
    both = Barrier(2, timeout=20)
    with ConnectionPool(dsn, min_size=0, max_size=2, backend="threads") as pool:
        db = TaskConnection(pool)

        @Celery("twice").task(base=base)
        def session():
            found = db().info.backend_pid
            both.wait()
            return found, db().info.backend_pid

        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(session.apply, task_id="same") for _ in range(2)]
            (one, again), (other, _) = [run.result().get() for run in runs]

        assert one == again != other
        until(lambda: pool.get_stats()["pool_available"] == 2, "both are back")


def test_deadline_ends_a_task_and_its_query(worker):
    with pytest.raises(Exception, match="deadline") as raised:
        worker.ask("bounded", 0.5)

    assert type(raised.value).__name__ == "DeadlineExceeded"


def test_time_limit_ends_a_task_and_its_query(worker, backend):
    if backend == "eventlet":
        pytest.skip("Celery's eventlet pool ignores time limits")

    for task in (("query", 300), ("scoped", "endless")):
        with pytest.raises(TimeLimitExceeded):
            worker.ask(*task, time_limit=0.5)


def test_revoked_task_ends_its_query(worker):
    result = worker.send("query", 300)
    until(lambda: worker.watch.busy() == 1, "the query runs")

    worker.terminate(result)

    with pytest.raises(TaskRevokedError):
        answer(result)
    until(lambda: worker.watch.busy() == 0, "the query ends")


def test_task_revoked_while_it_waits_for_a_connection_takes_none(worker):
    holders = [worker.send("query", 300) for _ in range(SIZE)]
    until(lambda: worker.watch.busy() == SIZE, "the pool is used up")
    waiting = worker.send("query", 0)
    until(lambda: worker.ask("state")["requests_waiting"] == 1, "a task waits")

    worker.terminate(waiting)
    until(lambda: worker.ask("state")["requests_waiting"] == 0, "nobody waits")
    for holder in holders:
        worker.terminate(holder)

    assert {type(outcome) for outcome in answers([waiting, *holders])} == {TaskRevokedError}
    until(lambda: worker.watch.busy() == 0, "the queries end")
    assert worker.ask("query", 0) == 42


@pytest.mark.parametrize("how", ["SIGTERM", "SIGQUIT"])
def test_stopped_worker_leaves_no_session(backend, dsn, tmp_path, how):
    worker = Worker(backend, dsn, tmp_path)
    result = worker.send("query", 1.0 if how == "SIGTERM" else 300)
    until(lambda: worker.watch.busy() == 1, "the query runs")

    worker.signal(signal.Signals[how])

    worker.process.wait(ANSWER_SECONDS)
    if how == "SIGTERM":
        assert answer(result) == 42
    until(lambda: not worker.watch.sessions(), "all sessions end")
    worker.close()
