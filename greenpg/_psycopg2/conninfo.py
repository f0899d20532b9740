"""psycopg2's connection strings: its parser, and libpq's defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from psycopg2 import OperationalError
from psycopg2.extensions import make_dsn, parse_dsn

from greenpg._protocol.libpq import libpq

if TYPE_CHECKING:
    from greenpg._session.connect_plan import Conninfo


class _Psycopg2Conninfo:
    """psycopg2's `Conninfo`."""

    error = OperationalError

    def parse(self, dsn: str) -> dict[str, str]:
        """Return psycopg2.extensions.parse_dsn's dict (libpq's PQconninfoParse)."""
        return parse_dsn(dsn)

    def make(self, params: Mapping[str, str]) -> str:
        """Return psycopg2.extensions.make_dsn's string."""
        return make_dsn(**params)

    def defaults(self, service: str | None) -> dict[str, str]:
        """Return what libpq's PQconndefaults finds; nothing where libpq cannot be reached."""
        if not libpq.has("PQconndefaults", "PQconninfoFree"):
            return {}
        saved = os.environ.get("PGSERVICE")
        try:
            if service is not None:  # PQconndefaults reads the service file for PGSERVICE alone
                os.environ["PGSERVICE"] = service
            return libpq.options(libpq.PQconndefaults())
        finally:
            if service is not None:
                os.environ.pop("PGSERVICE", None)
                if saved is not None:
                    os.environ["PGSERVICE"] = saved


CONNINFO: Final[Conninfo] = _Psycopg2Conninfo()
