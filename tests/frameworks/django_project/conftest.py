import gc
import os
from collections.abc import Iterator
from functools import wraps

import pytest

from tests.conftest import APPLICATION

from .observer import Observer

os.environ["PGAPPNAME"] = APPLICATION


@pytest.fixture(scope="session")
def project(dsn: str) -> Iterator[None]:
    """The project on a test database of its own."""
    from django.db import connection

    old_name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    _let_go()
    yield
    connection.creation.destroy_test_db(old_name, verbosity=0)


@pytest.fixture(autouse=True)
def empty_tables(project: None) -> Iterator[None]:
    """Fill and empty the tables; close the connections before and the pool after the test."""
    from .models import Account, Note

    Account.objects.bulk_create(Account(name=name, balance=100) for name in ("ann", "bob"))
    _let_go()
    yield
    Account.objects.all().delete()
    Note.objects.all().delete()
    _let_go()


@pytest.fixture(autouse=True)
def connections_end(request: pytest.FixtureRequest, empty_tables: None) -> None:
    """Close, in the test's own task, connections that Django's own wrappers would keep."""
    from django.db import connections

    test = request.node.obj

    @wraps(test)
    def closing(**given: object) -> None:
        try:
            test(**given)
        finally:
            connections.close_all()

    if not ours():
        request.node.obj = closing


@pytest.fixture
def observer(dsn: str, nothing_left: None) -> Iterator[Observer]:
    """An observer of the project's sessions on the server."""
    found = Observer(dsn, APPLICATION)
    yield found
    found.close()


def ours() -> bool:
    """Return True if the engine is greenpg's."""
    from django.db import connection

    return bool(connection.settings_dict["ENGINE"].startswith("greenpg"))


def _let_go() -> None:
    from django.db import connection, connections

    connections.close_all()
    connection.close_pool()
    if not ours():
        gc.collect()  # Django's own wrappers of ended tasks are garbage in cycles
