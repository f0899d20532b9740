"""Which servers a connection string names, in the order in which libpq would try them."""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias, TypeVar

from psycopg2 import OperationalError
from psycopg2 import extensions as ext

from greenpg._protocol.libpq import libpq

__all__ = ["Host", "Plan", "plan", "public_dsn"]

_ENVIRONMENT: Final = (
    "PGCONNECT_TIMEOUT", "PGHOST", "PGHOSTADDR", "PGLOADBALANCEHOSTS", "PGPORT", "PGSERVICE",
    "PGTARGETSESSIONATTRS",
)  # fmt: skip
_NAMES: Final = tuple(map(os.fsencode, _ENVIRONMENT))
_environ: Final[dict[bytes, bytes]] = vars(os.environ)["_data"]  # os.environ costs 2 us a name
_environment_lacks: Final = _environ.keys().isdisjoint

_T = TypeVar("_T")
Resolve: TypeAlias = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of the lists `host`, `hostaddr` and `port`."""

    name: str
    address: str
    port: str

    @property
    def needs_resolving(self) -> bool:
        """Tell whether libpq would look the name up (it blocks while it does)."""
        if not self.name or self.address or self.name[0] in "/@":
            return False
        return not _is_ip(self.name)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try: the hosts, whether their order is random, and seconds for each address.

    `simple` tells that libpq has a single address to try, so that the DSN can pass unchanged.
    """

    dsn: str = field(repr=False)  # it may hold a password
    params: Mapping[str, str] = field(repr=False)
    hosts: tuple[Host, ...]
    simple: bool
    random_order: bool
    timeout: float | None
    passes: tuple[str | None, ...]

    def attempts(self, resolve: Resolve, failed: list[str]) -> Iterator[str]:
        """Yield a DSN for each address; a name that cannot be resolved is noted in `failed`."""
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
                known[host] = resolve(host.name, int(host.port or 5432))
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
        return ext.make_dsn(**{key: value for key, value in params.items() if value})

    def combined(self, resolve: Resolve) -> str:
        """Return one DSN with all addresses, for libpq to try in turn."""
        failed: list[str] = []
        rows = [
            (host, address)
            for host in self.hosts
            for address in self._addresses(host, resolve, {}, failed)
        ]
        if not rows:
            raise OperationalError("\n".join(failed))
        lists = {
            "host": ",".join(host.name for host, _ in rows),
            "hostaddr": ",".join(address for _, address in rows),
            "port": ",".join(host.port for host, _ in rows),
        }
        return ext.make_dsn(**{**self.params, **{k: v for k, v in lists.items() if v.strip(",")}})


def plan(dsn: str) -> Plan:
    """Read a connection string with libpq's parser and defaults, service files included.

    Lists of different lengths, or a number that is none, are left to libpq to refuse.
    """
    if _environment_lacks(_NAMES):  # one call in place of seven
        known = _remembered(dsn)
    else:
        known = _remembered(dsn, tuple(map(_environ.get, _NAMES)))
    if "service" in known.params or b"PGSERVICE" in _environ:  # its file may have changed
        return _read(dsn)
    return known


@lru_cache(maxsize=32)
def _remembered(dsn: str, _environment: tuple[bytes | None, ...] = ()) -> Plan:
    return _read(dsn)


def _read(dsn: str) -> Plan:
    params = ext.parse_dsn(dsn)
    defaults = _defaults(params.get("service"))

    def given(key: str) -> str:
        return params.get(key) or defaults.get(key) or ""

    hosts = _hosts(given("host"), given("hostaddr"), given("port"))
    simple = len(hosts) <= 1 and not any(host.needs_resolving for host in hosts)
    attrs = given("target_session_attrs")
    return Plan(
        dsn=dsn,
        params=params,
        hosts=hosts,
        simple=simple,
        random_order=given("load_balance_hosts") == "random",
        timeout=_seconds(given("connect_timeout")),
        passes=("standby", "any") if attrs == "prefer-standby" and not simple else (None,),
    )


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


def _defaults(service: str | None) -> dict[str, str]:
    if service is None and not any(name in os.environ for name in _ENVIRONMENT):
        return {}
    if not libpq.has("PQconndefaults", "PQconninfoFree"):
        return {}
    saved = os.environ.get("PGSERVICE")
    try:
        if service is not None:  # libpq reads a service file for its defaults by this name only
            os.environ["PGSERVICE"] = service
        return libpq.options(libpq.PQconndefaults())
    finally:
        if service is not None:
            os.environ.pop("PGSERVICE", None)
            if saved is not None:
                os.environ["PGSERVICE"] = saved


def _seconds(text: str) -> float | None:
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


def public_dsn(dsn: str) -> str:
    """Return a connection string as psycopg2 shows it: the password is xxx."""
    params = ext.parse_dsn(dsn)
    return ext.make_dsn(**{**params, "password": "xxx"}) if "password" in params else dsn
