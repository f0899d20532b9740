"""The plan of a connect: the hosts of a connection string, in libpq's order, and their timeout.

The rules are those of libpq's manual, "Database Connection Control Functions". A driver brings
the parser of its connection strings and its error class (`Conninfo`).
"""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol, TypeAlias, TypeVar

_ENVIRONMENT: Final = (  # what of libpq's environment a plan depends on; the service comes first
    "PGSERVICE", "PGCONNECT_TIMEOUT", "PGHOST", "PGHOSTADDR", "PGLOADBALANCEHOSTS", "PGPORT",
    "PGTARGETSESSIONATTRS",
)  # fmt: skip
# os.environ's own dict, of bytes: asking os.environ for seven names that are absent is 35 calls,
# which `greenpg bench -w connect` shows
_lacks: Final = vars(os.environ)["_data"].keys().isdisjoint
_NAMES: Final = tuple(map(os.fsencode, _ENVIRONMENT))
_NOTHING: Final = (None,) * len(_ENVIRONMENT)
_PORT: Final = 5432  # libpq's compiled-in default

_T = TypeVar("_T")
Resolve: TypeAlias = Callable[[str, int], list[str]]


class Conninfo(Protocol):
    """A driver's connection strings."""

    def __hash__(self) -> int:
        """Return a hash: plans are cached by connection string and driver."""

    @property
    def error(self) -> type[Exception]:
        """Return the class of the error that no host can be tried."""

    def parse(self, dsn: str) -> dict[str, str]:
        """Return the parameters that a connection string names; raises the driver's error."""

    def make(self, params: Mapping[str, str]) -> str:
        """Return a connection string."""

    def defaults(self, service: str | None) -> dict[str, str]:
        """Return the defaults from the environment and from the service's entry, if one is named.

        The service of PGSERVICE counts if none is named here.
        """


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of the parameters `host`, `hostaddr` and `port`, which are lists."""

    name: str
    address: str
    port: str

    @property
    def needs_resolving(self) -> bool:
        """Return True if libpq would resolve the name, and block meanwhile."""
        if not self.name or self.address or self.name[0] in "/@":
            return False
        return not _is_ip(self.name)


@dataclass(frozen=True, slots=True)
class Plan:
    """The hosts to try in turn, each address for `timeout` seconds (None: without a limit).

    If `simple`, libpq has one address to try at most, and the DSN can be passed on unchanged.
    """

    conninfo: Conninfo = field(repr=False)
    dsn: str = field(repr=False)  # it may hold a password
    params: Mapping[str, str] = field(repr=False)
    hosts: tuple[Host, ...]
    simple: bool
    random_order: bool
    timeout: float | None
    passes: tuple[str | None, ...]  # target_session_attrs of each pass; None: as given

    def attempts(self, resolve: Resolve, failed: list[str]) -> Iterator[str]:
        """Yield a DSN for each address; names that cannot be resolved add a text to `failed`."""
        known: dict[Host, list[str]] = {}
        for attrs in self.passes:
            for host in self._in_order(self.hosts):
                for address in self._in_order(self._addresses(host, resolve, known, failed)):
                    yield self._single(host, address, attrs)

    def _in_order(self, items: Iterable[_T]) -> list[_T]:
        ordered = list(items)
        if self.random_order:
            random.shuffle(ordered)
        return ordered

    def _addresses(
        self, host: Host, resolve: Resolve, known: dict[Host, list[str]], failed: list[str]
    ) -> list[str]:
        if not host.needs_resolving:
            return [host.address]
        if host not in known:
            try:
                known[host] = resolve(host.name, int(host.port or _PORT))
            except OSError as err:
                known[host] = []
                failed.append(
                    f'could not translate host name "{host.name}" to address: {err.strerror}'
                )
        return known[host]

    def _single(self, host: Host, address: str, attrs: str | None) -> str:
        """Return the DSN with one host; the name stays, for certificates and .pgpass."""
        params = {**self.params, "host": host.name, "hostaddr": address, "port": host.port}
        params["load_balance_hosts"] = ""
        if attrs is not None:
            params["target_session_attrs"] = attrs
        return self.conninfo.make({key: value for key, value in params.items() if value})

    def combined(self, resolve: Resolve) -> str:
        """Return one DSN with all addresses, for libpq to try in turn.

        Raises the driver's error if no name can be resolved.
        """
        failed: list[str] = []
        rows = [
            (host, address)
            for host in self.hosts
            for address in self._addresses(host, resolve, {}, failed)
        ]
        if not rows:
            raise self.conninfo.error("\n".join(failed))
        lists = {
            "host": ",".join(host.name for host, _ in rows),
            "hostaddr": ",".join(address for _, address in rows),
            "port": ",".join(host.port for host, _ in rows),
        }
        named = {key: value for key, value in lists.items() if value.strip(",")}
        return self.conninfo.make({**self.params, **named})

    def public_dsn(self) -> str:
        """Return the connection string as psycopg2 shows it (conn.dsn): the password is xxx."""
        if "password" not in self.params:
            return self.dsn
        return self.conninfo.make({**self.params, "password": "xxx"})


def plan(dsn: str, conninfo: Conninfo) -> Plan:
    """Read a connection string, with the defaults of the environment and of service files.

    Lists of different lengths, and ports that are not numbers, are left to libpq to refuse.
    """
    environment = _NOTHING if _lacks(_NAMES) else tuple(map(os.environ.get, _ENVIRONMENT))
    known = _cached(dsn, conninfo, environment)
    if "service" in known.params or environment[0] is not None:  # its file may have changed
        return _read(dsn, conninfo, environment)
    return known


def _read(dsn: str, conninfo: Conninfo, environment: tuple[str | None, ...]) -> Plan:
    params = conninfo.parse(dsn)
    service = params.get("service")
    depends = service is not None or any(value is not None for value in environment)
    defaults = conninfo.defaults(service) if depends else {}

    def given(key: str) -> str:
        return params.get(key) or defaults.get(key) or ""

    hosts = _hosts(given("host"), given("hostaddr"), given("port"))
    simple = len(hosts) <= 1 and not any(host.needs_resolving for host in hosts)
    attrs = given("target_session_attrs")
    return Plan(
        conninfo=conninfo,
        dsn=dsn,
        params=params,
        hosts=hosts,
        simple=simple,
        random_order=given("load_balance_hosts") == "random",
        timeout=_seconds(given("connect_timeout")),
        passes=("standby", "any") if attrs == "prefer-standby" and not simple else (None,),
    )


_cached: Final = lru_cache(maxsize=32)(_read)


def _hosts(host: str, hostaddr: str, port: str) -> tuple[Host, ...]:
    names, addresses, ports = host.split(","), hostaddr.split(","), port.split(",")
    count = len(addresses) if hostaddr else len(names)
    if not host:
        names = [""] * count
    if not hostaddr:
        addresses = [""] * count
    if len(ports) == 1:
        ports *= count
    if not len(names) == len(addresses) == len(ports):
        return ()
    if not all(number.isdigit() for number in ports if number):
        return ()
    return tuple(Host(*row) for row in zip(names, addresses, ports, strict=True))


def _seconds(text: str) -> float | None:
    """Return the value of connect_timeout: zero and less mean no limit, as in libpq."""
    try:
        seconds = int(text)
    except ValueError:
        return None
    return float(seconds) if seconds > 0 else None


@lru_cache(maxsize=256)
def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
