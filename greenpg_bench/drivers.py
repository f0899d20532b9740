"""How each driver, made ready as its manual says, opens an autocommitting connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any, Protocol

from .hosts import HOSTS, Host

if TYPE_CHECKING:
    from .model import Contender


class Cursor(Protocol):
    """What the workloads use of a DB-API cursor."""

    def execute(self, query: str, /) -> object: ...
    def fetchone(self) -> object: ...
    def close(self) -> object: ...


class Connection(Protocol):
    """What the workloads use of a DB-API connection."""

    autocommit: bool

    def cursor(self) -> Cursor: ...
    def close(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Driver:
    """Modules to import and how to make them ready; `patched` asks for a monkey-patched process.

    `program` must be installed too.
    """

    modules: tuple[str, ...]
    prepare: Callable[[Host], Callable[..., Connection]] | None
    patched: bool = False
    program: str = ""


def _psycopg2(_host: Host) -> Any:
    return import_module("psycopg2").connect


def _psycogreen(host: Host) -> Any:
    import_module(f"psycogreen.{host.backend}").patch_psycopg()
    return _psycopg2(host)


def _greenpg(host: Host) -> Any:
    import_module("greenpg").use(host.backend)
    return import_module("greenpg").connect


def _greenpg3(host: Host) -> Any:
    import_module("greenpg").use(host.backend)
    return import_module("greenpg.psycopg3").connect


def _psycopg(_host: Host) -> Any:
    return import_module("psycopg").connect


DRIVERS: Mapping[str, Driver] = {
    "psycopg2": Driver(("psycopg2",), _psycopg2),
    "psycogreen": Driver(("psycopg2", "psycogreen"), _psycogreen),
    "greenpg": Driver(("psycopg2",), _greenpg),
    "multiplexer": Driver(("psycopg2",), _greenpg),
    "pool": Driver(("psycopg2",), _greenpg),
    "C": Driver(("psycopg2",), _psycopg2, program="cc"),
    "greenpg3": Driver(("psycopg",), _greenpg3),
    "psycopg": Driver(("psycopg",), _psycopg, patched=True),
    "asyncpg": Driver(("asyncpg",), None),
    "psycopg_pool": Driver(("psycopg", "psycopg_pool"), _psycopg, patched=True),
    "QueuePool": Driver(("psycopg2", "psycogreen", "sqlalchemy"), _psycogreen, patched=True),
    "db_pool": Driver(("psycopg2", "psycogreen"), _psycogreen, patched=True),
    "example": Driver(("psycopg2", "psycogreen"), _psycogreen, patched=True),
}


def plain_connector(contender: Contender) -> Callable[[str], Connection]:
    """Make the driver ready on its host; the answer opens connections as they are."""
    prepare = DRIVERS[contender.driver].prepare
    if prepare is None:
        raise TypeError(f"{contender.driver} has no blocking connections")
    return prepare(HOSTS[contender.host])


def connector(contender: Contender) -> Callable[[str], Connection]:
    """Make the driver ready on its host; the answer opens autocommitting connections."""
    connect = plain_connector(contender)

    def open_one(dsn: str) -> Connection:
        connection = connect(dsn)
        connection.autocommit = True
        return connection

    return open_one


def missing(contender: Contender) -> tuple[str, ...]:
    """The modules and programs that the contender needs to take part, and that are not here."""
    driver = DRIVERS[contender.driver]
    modules = driver.modules + HOSTS[contender.host].modules
    lacking = [module for module in modules if find_spec(module) is None]
    if driver.program and which(driver.program) is None:
        lacking.append(driver.program)
    return tuple(lacking)
