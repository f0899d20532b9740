"""A Patroni cluster on 127.0.0.1: etcd, and two nodes with PostgreSQL, Patroni and PgBouncer."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import psycopg2.extensions

from greenpg.embedded.supervisor import free_port

from ._processes import (
    USER,
    ClusterError,
    await_true,
    children,
    found,
    give,
    kill,
    pid_in,
    start,
)

if TYPE_CHECKING:
    from pathlib import Path

HERE: Final = "127.0.0.1"
SCOPE: Final = "greenpg"
SECONDS: Final = 90  # until a node that was killed follows the new primary
DATABASES: Final = ("all", "replication")
RUNNING: Final = ("running", "streaming")
SETTINGS: Final = {  # of Patroni, the shortest that it allows
    "ttl": 20,
    "loop_wait": 1,
    "retry_timeout": 3,
    "synchronous_mode": True,
}
PARAMETERS: Final = {"max_connections": 300, "wal_log_hints": "on", "max_wal_senders": 10}
# To new clients PgBouncer reports the parameters of an old session, such as in_hot_standby, until
# it reconnects. Patroni calls this before the promotion is complete.
CALLBACK: Final = """#!/bin/sh
case $2 in master|primary)
    until [ "$({psql} "{server_dsn}" -Atc 'select pg_is_in_recovery()')" = f ]; do sleep 0.02; done
esac
{psql} "{admin_dsn}" -c reconnect
"""
# PgBouncer runs while its server does: without one it lets clients in, and their queries wait.
GUARD: Final = """#!/bin/sh
runs() {{ test -s {pidfile} && kill -0 "$(cat {pidfile})" 2>/dev/null; }}
while sleep 0.1; do
    if {isready} -q -h {here} -p {server}; then
        runs || {pgbouncer} -q -d {ini}
    elif runs; then
        kill -TERM "$(cat {pidfile})"
    fi
done
"""
BOUNCER: Final = """[databases]
* = host={here} port={server}
[pgbouncer]
listen_addr = {here}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
admin_users = {user}
pidfile = {pidfile}
logfile = {log}
pool_mode = transaction
default_pool_size = 100
max_client_conn = 500
server_login_retry = 0.1
server_connect_timeout = 2
ignore_startup_parameters = extra_float_digits
"""


class Node:
    """A machine: Patroni with its PostgreSQL, and a PgBouncer before that."""

    def __init__(self, name: str, directory: Path, password: str, etcd: int) -> None:
        self.name: Final = name
        self.directory: Final = give_new(directory)
        self.port, self.bouncer, self.rest = free_port(), free_port(), free_port()
        self._programs = found()
        self._password = password
        self._pidfile = directory / "pgbouncer.pid"
        self._processes: list[subprocess.Popen[bytes]] = []  # Patroni, and what guards PgBouncer
        self._write("patroni.json", json.dumps(self._configuration(etcd), indent=1))
        self._write("users", f'"{USER}" "{password}"\n')
        self._write("pgpass", f"*:*:*:*:{password}\n")
        self._write("pgbouncer.ini", BOUNCER.format(**self._names()))
        self._write("callback", CALLBACK.format(**self._names())).chmod(0o700)
        self._write("guard", GUARD.format(**self._names())).chmod(0o700)

    def _names(self) -> dict[str, Any]:
        user = f"host={HERE} user={USER} passfile={self.directory / 'pgpass'}"
        return {
            "here": HERE,
            "server": self.port,
            "port": self.bouncer,
            "user": USER,
            "users": self.directory / "users",
            "pidfile": self._pidfile,
            "log": self.directory / "pgbouncer.log",
            "ini": self.directory / "pgbouncer.ini",
            "pgbouncer": self._programs["pgbouncer"],
            "psql": self._programs["postgres"].with_name("psql"),
            "isready": self._programs["postgres"].with_name("pg_isready"),
            "server_dsn": f"{user} port={self.port} dbname=postgres",
            "admin_dsn": f"{user} port={self.bouncer} dbname=pgbouncer",
        }

    def _configuration(self, etcd: int) -> dict[str, Any]:
        role = {"username": USER, "password": self._password}
        rules = [f"host {database} all {HERE}/32 scram-sha-256" for database in DATABASES]
        address = f"{HERE}:{self.rest}"
        callback = str(self.directory / "callback")
        return {
            "scope": SCOPE,
            "name": self.name,
            "etcd3": {"host": f"{HERE}:{etcd}"},
            "restapi": {"listen": address, "connect_address": address},
            "bootstrap": {
                "dcs": {**SETTINGS, "postgresql": {"use_pg_rewind": True}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "scram-sha-256"}],
            },
            "postgresql": {
                "listen": f"{HERE}:{self.port}",
                "connect_address": f"{HERE}:{self.port}",
                "data_dir": str(self.directory / "data"),
                "bin_dir": str(self._programs["postgres"].parent),
                "pgpass": str(self.directory / "patroni.pgpass"),
                "authentication": dict.fromkeys(("superuser", "replication", "rewind"), role),
                "parameters": {**PARAMETERS, "unix_socket_directories": str(self.directory)},
                "pg_hba": ["local all all scram-sha-256", *rules],
                "callbacks": {"on_role_change": callback},
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        return give(path)

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL, and what starts PgBouncer."""
        patroni = self._programs["patroni"], self.directory / "patroni.json"
        self._processes = [
            start(self.directory / "patroni.log", *patroni),
            start(self.directory / "guard.log", self.directory / "guard"),
        ]

    def kill(self) -> None:
        """End all processes of the node at once, as if the machine had failed."""
        postmaster = pid_in(self.directory / "data" / "postmaster.pid")
        others = children(postmaster) if postmaster else []
        ours = [process.pid for process in self._processes if process.poll() is None]
        kill(*ours, pid_in(self._pidfile), postmaster, *others)
        for process in self._processes:
            process.wait()
        (self.directory / "data" / "postmaster.pid").unlink(missing_ok=True)
        self._pidfile.unlink(missing_ok=True)
        self._processes = []

    def stop(self) -> None:
        """Stop the node in order; end what is left after that."""
        if not self._processes:
            return
        self._processes[0].send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._processes[0].wait(20)
        self.kill()

    def dsn(self, **more: Any) -> str:
        """Return a connection string for the server itself."""
        usual = {"host": HERE, "port": self.port, "user": USER, "dbname": "postgres"}
        limits = {"password": self._password, "connect_timeout": 2}
        dsn: str = psycopg2.extensions.make_dsn(**{**usual, **limits, **more})
        return dsn

    def members(self) -> dict[str, str]:
        """Return the members' roles, as this node's Patroni sees them; {} if it does not answer."""
        with suppress(OSError, ValueError), _asked(self.rest, "cluster") as answer:
            members = json.load(answer)["members"]
            return {one["name"]: one["role"] for one in members if one["state"] in RUNNING}
        return {}

    def runs(self) -> bool:
        """Return True if it is a member of the cluster."""
        return self.name in self.members()

    def hand_over(self, to: Node) -> None:
        """Ask for a switchover from this node, the primary."""
        order = {"leader": self.name, "candidate": to.name}
        try:
            _asked(self.rest, "switchover", order).close()
        except urllib.error.HTTPError as error:
            raise ClusterError(f"switchover: {error.read().decode()}") from None


def give_new(directory: Path) -> Path:
    """Make a directory that belongs to the servers' user."""
    directory.mkdir()
    return give(directory)


def _asked(port: int, path: str, order: Any = None) -> Any:
    data = None if order is None else json.dumps(order).encode()
    return urllib.request.urlopen(f"http://{HERE}:{port}/{path}", data, timeout=20)


class Cluster:
    """etcd and two nodes, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = give(directory)
        self._ports = free_port(), free_port()
        self.password: Final = secrets.token_urlsafe()
        self.nodes: Final = [
            Node(name, directory / name, self.password, self._ports[0]) for name in ("a", "b")
        ]
        self._etcd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything, and return when the second node is a synchronous standby."""
        client, peer = (f"http://{HERE}:{port}" for port in self._ports)
        data = give_new(self._directory / "etcd")
        self._etcd = start(
            data / "log", found()["etcd"], "--data-dir", data / "data", "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}",
        )  # fmt: skip
        for node in self.nodes:
            node.start()
            await_true(node.runs, SECONDS, f"node {node.name} runs")
        self.await_health()

    def stop(self) -> None:
        """End everything that was started."""
        for node in self.nodes:
            node.stop()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()

    def roles(self) -> tuple[Node, Node]:
        """Return the primary and its synchronous standby."""
        seen = [node.members() for node in self.nodes]
        for one, other in (self.nodes, self.nodes[::-1]):
            wanted = {one.name: "leader", other.name: "sync_standby"}
            if seen == [wanted, wanted]:
                return one, other
        raise ClusterError(f"no primary with a synchronous standby: {seen}")

    def await_health(self) -> None:
        """Wait until both nodes play their parts."""
        await_true(self._is_healthy, SECONDS, "a synchronous standby follows the primary")

    def _is_healthy(self) -> bool:
        with suppress(ClusterError):
            self.roles()
            return True
        return False

    def environment(self) -> dict[str, str]:
        """Return the environment of a program, with the password."""
        return {**os.environ, "PGPASSWORD": self.password}

    def dsn(self, bouncer: bool) -> str:
        """Return a connection string with both nodes, without the password."""
        ports = [node.bouncer if bouncer else node.port for node in self.nodes]
        return (
            f"host={HERE},{HERE} port={ports[0]},{ports[1]} user={USER} dbname=postgres "
            "connect_timeout=2 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 "
            "tcp_user_timeout=10000"
        )
