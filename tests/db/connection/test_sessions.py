"""Settings of a session and its transactions."""

from __future__ import annotations

import psycopg2.extensions as ext
import pytest


def shown(conn, setting):
    cur = conn.cursor()
    cur.execute(f"show {setting}")
    return cur.fetchone()[0]


@pytest.mark.parametrize(
    ("level", "name", "text"),
    [
        (ext.ISOLATION_LEVEL_READ_UNCOMMITTED, "READ UNCOMMITTED", "read uncommitted"),
        (ext.ISOLATION_LEVEL_READ_COMMITTED, "READ COMMITTED", "read committed"),
        (ext.ISOLATION_LEVEL_REPEATABLE_READ, "REPEATABLE READ", "repeatable read"),
        (ext.ISOLATION_LEVEL_SERIALIZABLE, "SERIALIZABLE", "serializable"),
    ],
)
def test_isolation_level_is_set_in_every_way(conn, level, name, text):
    found = []

    conn.isolation_level = level
    found.append(shown(conn, "transaction_isolation"))
    conn.rollback()
    conn.isolation_level = None
    conn.set_session(isolation_level=name)
    found.append(shown(conn, "transaction_isolation"))
    conn.set_isolation_level(level)
    found.append(shown(conn, "transaction_isolation"))

    assert found == [text] * 3
    assert conn.isolation_level == level


def test_default_isolation_level_comes_back(conn):
    conn.isolation_level = ext.ISOLATION_LEVEL_SERIALIZABLE

    conn.isolation_level = ext.ISOLATION_LEVEL_DEFAULT

    assert conn.isolation_level is None
    assert shown(conn, "transaction_isolation") == "read committed"


def test_readonly_and_deferrable_are_set_and_unset(conn):
    conn.set_session("serializable", readonly=True, deferrable=True)
    on = [shown(conn, f"transaction_{name}") for name in ("read_only", "deferrable")]
    conn.rollback()
    read = (conn.readonly, conn.deferrable)
    conn.readonly, conn.deferrable = False, None
    off = [shown(conn, f"transaction_{name}") for name in ("read_only", "deferrable")]

    assert read == (True, True)
    assert on == ["on", "on"]
    assert off == ["off", "off"]
    assert (conn.readonly, conn.deferrable) == (False, None)


def test_readonly_transaction_refuses_to_write(db, conn):
    conn.readonly = True

    with pytest.raises(db.errors.ReadOnlySqlTransaction):
        conn.cursor().execute("create table never (n int)")


@pytest.mark.parametrize(
    "change",
    [
        lambda conn: setattr(conn, "autocommit", True),
        lambda conn: setattr(conn, "isolation_level", ext.ISOLATION_LEVEL_SERIALIZABLE),
        lambda conn: setattr(conn, "readonly", True),
        lambda conn: setattr(conn, "deferrable", True),
        lambda conn: conn.set_session(readonly=True),
    ],
)
def test_settings_are_refused_inside_a_transaction(db, conn, change):
    conn.cursor().execute("select 1")

    with pytest.raises(db.ProgrammingError, match="cannot be used inside a transaction"):
        change(conn)

    conn.rollback()
    change(conn)


def test_wrong_values_are_refused(conn):
    with pytest.raises(ValueError, match="isolation_level"):
        conn.set_session("no such level")
    with pytest.raises(ValueError, match="isolation"):
        conn.isolation_level = 99

    assert shown(conn, "transaction_isolation") == "read committed"


def test_settings_cannot_be_deleted(conn):
    for name in ("autocommit", "isolation_level", "readonly", "deferrable"):
        with pytest.raises((AttributeError, TypeError)):
            delattr(conn, name)

    assert conn.autocommit is False


def test_autocommit_runs_outside_transactions(auto):
    shown(auto, "work_mem")

    assert auto.autocommit is True
    assert auto.info.transaction_status == ext.TRANSACTION_STATUS_IDLE
    assert auto.status == ext.STATUS_READY


def test_autocommit_by_isolation_level(conn):
    conn.cursor().execute("select 1")

    conn.set_isolation_level(ext.ISOLATION_LEVEL_AUTOCOMMIT)

    assert conn.autocommit
    assert conn.status == ext.STATUS_READY


def test_autocommit_by_set_session_uses_the_servers_defaults(conn):
    conn.set_session(autocommit=True, readonly=True)

    assert shown(conn, "default_transaction_read_only") == "on"
    conn.readonly = None
    assert shown(conn, "default_transaction_read_only") == "off"


def test_client_encoding_is_set_and_ends_the_transaction(conn):
    cur = conn.cursor()
    cur.execute("select 1")

    conn.set_client_encoding("LATIN1")

    assert conn.encoding == "LATIN1"
    assert conn.status == ext.STATUS_READY
    cur.execute("select 'ä', octet_length(%s::bytea)", (b"\xe4",))
    assert cur.fetchone() == ("ä", 1)
    assert shown(conn, "client_encoding") == "LATIN1"


def test_unknown_encoding_is_refused_and_nothing_changes(db, conn):
    with pytest.raises((db.Error, LookupError)):
        conn.set_client_encoding("no such encoding")

    assert conn.encoding == "UTF8"
    assert shown(conn, "client_encoding") == "UTF8"


def test_reset_brings_the_session_back(conn):
    conn.set_session("serializable")
    cur = conn.cursor()
    cur.execute("set work_mem = '1234kB'; create temp table made (n int)")

    conn.reset()

    cur.execute("select to_regclass('made')")
    assert cur.fetchone() == (None,)
    assert shown(conn, "work_mem") != "1234kB"
    assert shown(conn, "transaction_isolation") == "read committed"
    assert conn.isolation_level is None


def test_reset_inside_a_failed_transaction(db, conn):
    with pytest.raises(db.errors.DivisionByZero):
        conn.cursor().execute("select 1/0")

    conn.reset()

    assert conn.status == ext.STATUS_READY
    assert shown(conn, "work_mem")


@pytest.mark.parametrize(
    "change",
    [
        lambda conn: setattr(conn, "readonly", False),
        lambda conn: conn.set_session(autocommit=True),
        lambda conn: conn.set_client_encoding("UTF8"),
        lambda conn: conn.reset(),
    ],
)
def test_setting_waits_for_the_operation_of_another_task(conn, spawn, gate, change):
    conn.autocommit = True
    job = spawn(conn.cursor().execute, gate.sql)
    gate.wait_for()
    changing = spawn(change, conn)
    gate.open()

    job.result()
    changing.result()

    assert shown(conn, "client_encoding") == "UTF8"
