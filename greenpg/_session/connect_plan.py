"""The plan of a connect: the hosts of a connection string, in libpq's order, and their timeout.

The rules are those of libpq's manual, "Database Connection Control Functions". A driver brings
the parser of its connection strings and its error class (`Conninfo`).
"""

from __future__ import annotations

import ipaddress
import os
import random
import re
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
DEFAULT_PORT: Final = 5432  # libpq's compiled-in default
_INTEGER: Final = re.compile(r"[ \t-\r]*([+-]?[0-9]{1,99})[ \t-\r]*")
_CHANGED: Final = ("host", "hostaddr", "port", "target_session_attrs")  # in an attempt's DSN

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

    def settings(self, dsn: str) -> dict[str, str]:
        """Return all parameters as the driver reads them, with those from elsewhere.

        A service's entry, the environment and the driver itself set what the connection string
        does not name. Empty if the driver will refuse the string.
        """

    def refusal(self, dsn: str) -> str | None:
        """Return the driver's error if it refuses the parameters before it tries a host."""


@dataclass(frozen=True, slots=True)
class Host:
    """One entry of the parameters `host`, `hostaddr` and `port`, which are lists."""

    name: str
    address: str
    port: str

    @property
    def needs_resolving(self) -> bool:
        """Return True if libpq would resolve the name, and block meanwhile."""
        if not self.name or self.address or self.name[0] in "/@" or self.number is None:
            return False
        return not _is_ip(self.name)

    @property
    def number(self) -> int | None:
        """Return the port; None if libpq refuses it."""
        number = _integer(self.port) if self.port else DEFAULT_PORT
        return number if number is not None and 0 < number < 65536 else None

    @property
    def is_last(self) -> bool:
        """Return True if libpq tries no host after this one: its port is not an integer."""
        return bool(self.port) and _integer(self.port) is None


@dataclass(frozen=True, slots=True)
class Plan:
    """The hosts to try in turn, each address for `timeout` seconds (None: without a limit).

    If `simple`, libpq has one address to try at most, and the DSN can be passed on unchanged.
    """

    conninfo: Conninfo = field(repr=False)
    dsn: str = field(repr=False)  # it may hold a password
    params: Mapping[str, str] = field(repr=False)  # what the DSN names
    settings: Mapping[str, str] = field(repr=False)  # and what is set elsewhere
    hosts: tuple[Host, ...]
    simple: bool
    random_order: bool
    timeout: float | None
    refusal: str | None  # why no host may be tried
    passes: tuple[str | None, ...]  # target_session_attrs of each pass; None: as given

    @property
    def demands_more_of_sockets(self) -> bool:
        """Return True if a Unix-domain socket to which one can connect may yet be refused."""
        settings = self.settings
        return bool(settings.get("requirepeer")) or settings.get("gssencmode") == "require"

    def attempts(self, resolve: Resolve, failed: list[str]) -> Iterator[tuple[str, bool]]:
        """Yield a DSN for each address, and whether that was resolved.

        Names that cannot be resolved add a text to `failed`.
        """
        known: dict[Host, list[str]] = {}
        for attrs in self.passes:
            for host in self._in_order(self.hosts):
                for address in self._in_order(self._addresses(host, resolve, known, failed)):
                    yield self._single(host, address, attrs), host.needs_resolving
                if host.is_last:
                    return

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
                known[host] = resolve(host.name, host.number or DEFAULT_PORT)
            except (OSError, UnicodeError) as err:  # a name that IDNA does not allow
                known[host] = []
                reason = getattr(err, "strerror", None) or err
                failed.append(f'could not translate host name "{host.name}" to address: {reason}')
        return known[host]

    def _single(self, host: Host, address: str, attrs: str | None) -> str:
        """Return the DSN with one host; the name stays, for certificates and .pgpass."""
        attributes = {} if attrs is None else {"target_session_attrs": attrs}
        return self._with({"host": host.name, "hostaddr": address, "port": host.port, **attributes})

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
        return self._with(lists)

    def _with(self, changed: Mapping[str, str]) -> str:
        """Return the DSN with some parameters changed.

        One that is empty must be named if it is set elsewhere, in the environment or by a service.
        """
        needed = {key: value for key, value in changed.items() if value or key in self.settings}
        return self.conninfo.make({**self.params, **needed})

    def public_dsn(self) -> str:
        """Return the connection string as psycopg2 shows it (conn.dsn): the password is xxx."""
        if "password" not in self.params:
            return self.dsn
        return self.conninfo.make({**self.params, "password": "xxx"})

    def as_given(self, used: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters of an attempt with what it has changed in them undone."""
        rest = {key: value for key, value in used.items() if key not in _CHANGED}
        return {**rest, **{key: self.settings[key] for key in _CHANGED if key in self.settings}}


def plan(dsn: str, conninfo: Conninfo) -> Plan:
    """Read a connection string, with the defaults of the environment and of service files.

    Lists of different lengths are left to libpq to refuse.
    """
    environment = _NOTHING if _lacks(_NAMES) else tuple(map(os.environ.get, _ENVIRONMENT))
    known = _cached(dsn, conninfo, environment)
    depends = "service" in known.params or environment[0] is not None  # its file may have changed
    if depends or known.refusal is not None or not known.settings:  # for lack of descriptors, say
        return _read(dsn, conninfo, environment)
    return known


def _read(dsn: str, conninfo: Conninfo, environment: tuple[str | None, ...]) -> Plan:
    params, settings = conninfo.parse(dsn), conninfo.settings(dsn)
    host, hostaddr, port = (settings.get(key, "") for key in ("host", "hostaddr", "port"))
    hosts = _hosts(host, hostaddr, port)
    simple = len(hosts) <= 1 and not any(host.needs_resolving for host in hosts)
    prefers_standby = settings.get("target_session_attrs") == "prefer-standby"
    timeout, refusal = _timeout(settings.get("connect_timeout", "0"))
    return Plan(
        conninfo=conninfo,
        dsn=dsn,
        params=params,
        settings=settings,
        hosts=hosts,
        simple=simple,
        random_order=settings.get("load_balance_hosts") == "random",
        timeout=timeout,
        refusal=refusal if simple else conninfo.refusal(dsn) or refusal,
        passes=("standby", "any") if prefers_standby and not simple else (None,),
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
    return tuple(Host(*row) for row in zip(names, addresses, ports, strict=True))


def _timeout(text: str) -> tuple[float | None, str | None]:
    """Return the seconds of a connect_timeout and why libpq refuses it; less than 1 is no limit."""
    seconds = _integer(text)
    if seconds is None:
        return None, f'invalid integer value "{text}" for connection option "connect_timeout"\n'
    return (float(seconds) if seconds > 0 else None), None


def _integer(text: str) -> int | None:
    """Return an integer as libpq reads it (pqParseIntParam, fe-connect.c), None if it refuses."""
    found = _INTEGER.fullmatch(text)
    number = 0 if found is None else int(found[1])
    return None if found is None or not -(2**31) <= number < 2**31 else number


@lru_cache(maxsize=256)
def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
