"""No password, parameter value or query text is shown unless asked for, on every backend."""

from __future__ import annotations

from contextlib import suppress

import pytest
from psycopg2.extensions import make_dsn

import greenpg
from greenpg.backend import current
from greenpg.errors import PoolTimeout
from greenpg.threads import pristine
from tests.db.conftest import password_of, until
from tests.db.monitor.conftest import get

_native = pristine("time")
PASSWORD, VALUE, QUERY = "hunter2", "parameter4", "as_query6"
SECRETS = (PASSWORD, VALUE, QUERY)


def ask(conn, statement=f"select %s::text {QUERY}"):
    conn.cursor().execute(statement, (VALUE,))


def stall():
    _native.sleep(0.3)  # hunter2 parameter4 as_query6


@pytest.fixture
def busy(make, dsn, driver):
    """A process of which much is shown: a holder with its stack, failures of each kind, a stall."""
    name = driver.__name__
    for place in ({"password": PASSWORD}, {"port": 1, "password": PASSWORD}):
        refused = make(make_dsn(dsn, **place), driver=name, name=f"{place.keys()}", timeout=0.5)
        with suppress(PoolTimeout), refused.connection():
            pass
    reset = make(driver=name, name="reset", reset=lambda conn: ask(conn, f"select %s / 0 {QUERY}"))
    with reset.connection() as conn:
        ask(conn)
    pool = make(driver=name, holder="stack", kwargs={"options": f"-c greenpg.secret={VALUE}"})
    with pool.connection() as conn, greenpg.watch(0.1, backend=current()) as watch:
        ask(conn)
        if "hub" in current().capabilities:
            until(lambda: watch._beat, "it beats")
            stall()
            until(lambda: watch.count, "noted")
        until(reset.failures, "one failed")
        yield password_of(dsn)


def shown(server):
    return "".join(get(server, path).body.decode() for path in ("/", "/data", "/page.js"))


def test_no_secret_is_shown(busy, serve, listen):
    server = serve()

    text = shown(server) + str(listen(server).event())

    assert [secret for secret in (*SECRETS, busy) if secret in text] == []
    assert "in busy" in text
    assert '"what": "reset"' in text


def test_details_are_shown_to_whom_asks(busy, serve):
    text = shown(serve(details=True))

    assert "with pool.connection() as conn" in text  # the source in the holder's stack
    assert VALUE in text
    assert busy not in text
