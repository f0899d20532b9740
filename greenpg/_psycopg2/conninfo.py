"""psycopg2's connection strings: its parser, and libpq's reading of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from psycopg2 import OperationalError
from psycopg2.extensions import ConnectionInfo, make_dsn, parse_dsn

from greenpg._protocol.libpq import libpq

if TYPE_CHECKING:
    from greenpg._session.connect_plan import Conninfo, Plan

_UNCONNECTED: Final = (
    "PQconnectStartParams", "PQconninfo", "PQconninfoFree", "PQerrorMessage", "PQfinish",
)  # fmt: skip


class _Psycopg2Conninfo:
    """psycopg2's `Conninfo`."""

    error = OperationalError

    def parse(self, dsn: str) -> dict[str, str]:
        """Return psycopg2.extensions.parse_dsn's dict (libpq's PQconninfoParse)."""
        return parse_dsn(dsn)

    def make(self, params: Mapping[str, str]) -> str:
        """Return psycopg2.extensions.make_dsn's string."""
        return make_dsn(**params)

    def settings(self, dsn: str) -> dict[str, str]:
        """Return what libpq would connect with; what is given where libpq cannot be reached."""
        return libpq.settings(dsn) if libpq.has(*_UNCONNECTED) else self.parse(dsn)

    def refusal(self, dsn: str) -> str | None:
        """Return libpq's error if it refuses a parameter; None where it cannot be reached."""
        return libpq.refusal(dsn) if libpq.has(*_UNCONNECTED) else None


class GivenInfo(ConnectionInfo):
    """`conn.info` of a connection that libpq made with the address of one of several hosts."""

    def __init__(self, conn: Any) -> None:
        super().__init__(conn)
        self._plan: Plan = conn._greenpg_state.plan

    @property
    def dsn_parameters(self) -> dict[str, str]:
        """The parameters as they were given: whoever reconnects with them has every host."""
        return self._plan.as_given(super().dsn_parameters)


CONNINFO: Final[Conninfo] = _Psycopg2Conninfo()
