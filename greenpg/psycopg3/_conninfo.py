"""psycopg 3's connection strings: its parser, and libpq's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo, timeout_from_conninfo

if TYPE_CHECKING:
    from greenpg._session.connect_plan import Conninfo

_WRONG: Final = "?"


class _Psycopg3Conninfo:
    """psycopg 3's `Conninfo`."""

    error = OperationalError

    def parse(self, dsn: str) -> dict[str, str]:
        """Return the parameters that a string names (libpq's PQconninfoParse)."""
        return _named(pq.Conninfo.parse(dsn.encode()))

    def make(self, params: Mapping[str, str]) -> str:
        """Return psycopg.conninfo.make_conninfo's string."""
        return make_conninfo("", **params)

    def settings(self, dsn: str) -> dict[str, str]:
        """Return what libpq would connect with (PQconninfo), from whatever source."""
        pgconn = _unconnected(dsn, "sslmode")
        try:
            found = _named(pgconn.info)
            if "connect_timeout" in found:  # which psycopg reads otherwise than libpq: 2.5, say
                found["connect_timeout"] = str(timeout_from_conninfo(dict(found)))
            return found
        except OperationalError:  # libpq cannot read them
            return {}
        finally:
            pgconn.finish()

    def refusal(self, dsn: str) -> str | None:
        """Return libpq's error if it refuses a parameter before it tries a host."""
        pgconn = _unconnected(dsn, "port")
        try:
            text = pgconn.get_error_message()
            return None if f'"{_WRONG}"' in text else text
        finally:
            pgconn.finish()


def _unconnected(dsn: str, name: str) -> Any:
    """Return a PGconn that will never have a socket, since the parameter's value is wrong."""
    return pq.PGconn.connect_start(make_conninfo(dsn, **{name: _WRONG}).encode())


def _named(options: list[Any]) -> dict[str, str]:
    return {o.keyword.decode(): o.val.decode() for o in options if o.val is not None}


CONNINFO: Final[Conninfo] = _Psycopg3Conninfo()
