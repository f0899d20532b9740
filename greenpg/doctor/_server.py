"""Rows about the server and the network in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

from .rows import Row

SECTION: Final = "server"
ATTEMPTS: Final = 5
LOCAL: Final = ("/", "@", "127.", "::1", "localhost")
FEW: Final = 10  # percent
USED: Final = "select coalesce(sum(numbackends), 0)::int from pg_stat_database"
LIMITS: Final = """
    select (select rolconnlimit from pg_roles where rolname = current_user),
           (select datconnlimit from pg_database where datname = current_database())
"""


def server(connect: Callable[[], Any]) -> Iterator[Row]:
    """Yield the rows about the server that `connect` connects to; errors propagate."""
    with closing(connect()) as conn:
        conn.autocommit = True
        yield _identity(conn)
        yield _encryption(conn)
        yield _pooler(conn, connect)
        for examine in (_connections, _timeouts, _silence, _replication, _two_phase):
            yield examine(conn)


def _one(conn: Any, query: str, *args: object) -> Any:
    with closing(conn.cursor()) as cur:
        cur.execute(query, args)
        return cur.fetchone()[0]


def _setting(conn: Any, name: str) -> Any:
    return _one(conn, "select current_setting(%s, true)", name)


def _backend_pid(conn: Any) -> Any:
    return _one(conn, "select pg_backend_pid()")


def _identity(conn: Any) -> Row:
    version = conn.info.parameter_status("server_version")
    where = f"{conn.info.host or 'a Unix socket'}, port {conn.info.port}"
    fact = f"{version} at {where}, database {conn.info.dbname}, role {conn.info.user}"
    if _one(conn, "select pg_is_in_recovery()"):
        fact += "; a standby, so read-only"
    return Row(SECTION, "PostgreSQL", "good", fact)


def _encryption(conn: Any) -> Row:
    info = conn.info
    if info.ssl_in_use:
        mode = info.dsn_parameters.get("sslmode", "prefer")
        fact = f"{info.ssl_attribute('protocol')} {info.ssl_attribute('cipher')}, sslmode={mode}"
        return Row(SECTION, "SSL", "good", fact)
    if _is_local(conn):
        return Row(SECTION, "SSL", "fact", "off; the server is on this machine")
    remedy = "sslmode=verify-full with sslrootcert=..., or at least sslmode=require"
    return Row(SECTION, "SSL", "note", "off: passwords and data can be read on the network", remedy)


def _is_local(conn: Any) -> bool:
    params = conn.info.dsn_parameters
    host = params.get("hostaddr") or params.get("host") or "/"
    return host.startswith(LOCAL)


def _pooler(conn: Any, connect: Callable[[], Any]) -> Row:
    """Detect a pooler: the process id it sends at connect is not that of a server process."""
    title = "pooler in between"
    if conn.info.backend_pid == _backend_pid(conn):
        return Row(SECTION, title, "good", "none")
    if _shares_sessions(conn, connect):
        remedy = "reset='rollback' for pools; LISTEN and session state on a direct connection"
        fact = "yes, in transaction mode: SET, LISTEN, advisory locks, temporary tables are lost"
        return Row(SECTION, title, "note", fact, remedy)
    return Row(SECTION, title, "fact", "yes, such as PgBouncer; probably in session mode")


def _shares_sessions(conn: Any, connect: Callable[[], Any]) -> bool:
    """Return True if another client gets this server session while `conn` is connected."""
    with closing(connect()) as other:
        other.autocommit = True
        return any(_backend_pid(conn) == _backend_pid(other) for _ in range(ATTEMPTS))


def _connections(conn: Any) -> Row:
    most = int(_setting(conn, "max_connections"))
    names = ("superuser_reserved_connections", "reserved_connections")
    reserved = sum(int(_setting(conn, name) or 0) for name in names)
    used = _one(conn, USED)
    free = max(0, most - reserved - used)
    fact = f"{free} free: {most} at most, {reserved} reserved, {used} in use{_limits(conn)}"
    if free * 100 >= most * FEW:
        return Row(SECTION, "connections", "good", fact)
    remedy = "lower max_size of the pools (times processes), or raise max_connections"
    return Row(SECTION, "connections", "note", fact, remedy)


def _limits(conn: Any) -> str:
    with closing(conn.cursor()) as cur:
        cur.execute(LIMITS)
        found = zip(("role", "database"), cur.fetchone(), strict=True)
    return "".join(f"; this {what} {most}" for what, most in found if (most or -1) >= 0)


def _timeouts(conn: Any) -> Row:
    idle = _setting(conn, "idle_in_transaction_session_timeout")
    fact = f"statement_timeout {_setting(conn, 'statement_timeout')}, "
    fact += f"idle_in_transaction_session_timeout {idle}"
    if idle != "0":
        return Row(SECTION, "timeouts", "good", fact)
    remedy = "options='-c idle_in_transaction_session_timeout=60s' ends forgotten transactions"
    return Row(SECTION, "timeouts", "note", fact, remedy)


def _silence(conn: Any) -> Row:
    title = "silent network"
    if _is_local(conn):
        return Row(SECTION, title, "fact", "does not apply: the server is on this machine")
    params = conn.info.dsn_parameters
    wanted = ("keepalives_idle", "tcp_user_timeout")
    fact = "".join(f"{name} {params.get(name) or 'of the system'}, " for name in wanted)
    fact += f"the server's tcp_keepalives_idle {_setting(conn, 'tcp_keepalives_idle')}"
    if params.get("keepalives_idle"):
        return Row(SECTION, title, "good", fact)
    # tcp_keepalive_time is two hours by default: tcp(7)
    remedy = "keepalives_idle=30 keepalives_interval=10 tcp_user_timeout=30000 in the DSN"
    return Row(SECTION, title, "note", f"{fact}: detected after two hours", remedy)


def _replication(conn: Any) -> Row:
    level = _setting(conn, "wal_level")
    fact = f"wal_level {level}, max_wal_senders {_setting(conn, 'max_wal_senders')}"
    if level != "logical":
        fact += "; logical replication requires wal_level=logical"
    return Row(SECTION, "replication", "fact", fact)


def _two_phase(conn: Any) -> Row:
    number = _setting(conn, "max_prepared_transactions")
    fact = f"max_prepared_transactions {number}"
    if number == "0":
        fact += ": tpc_prepare() fails"
    return Row(SECTION, "two-phase commit", "fact", fact)
