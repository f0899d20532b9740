"""Connects to the hosts of a connection string in turn, with psycopg's errors and texts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as e
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo

from greenpg._session.connect_plan import plan
from greenpg._session.lock import IN_HUB

from ._conninfo import CONNINFO
from ._driving import drive_connecting
from ._errors import WaitTimeout

if TYPE_CHECKING:
    from greenpg.backend import Backend


def connect_in_turn(cls: Any, backend: Backend, params: Any) -> Any:
    """Return a connection of the class to the first address that lets us in."""
    if not backend.can_wait():
        raise psycopg.ProgrammingError(IN_HUB)
    targets = plan(make_conninfo("", **params), CONNINFO)
    timeout = timeout_from_conninfo({**targets.settings, **params})  # a service may set it
    if targets.refusal is not None:
        raise psycopg.OperationalError(targets.refusal)
    failed: list[tuple[Any, str]] = []
    unresolved: list[str] = []
    attempts = targets.attempts(partial(_addresses, backend), unresolved)
    for dsn, _ in [(targets.dsn, False)] if targets.simple else attempts:
        try:
            return drive_connecting(backend, cls._connect_gen(dsn), timeout)
        except WaitTimeout:  # noqa: PERF203  one turn is a connection
            failed.append((e.ConnectionTimeout("connection timeout expired"), _described(dsn)))
        except psycopg.Error as error:
            failed.append((error, _described(dsn)))
    if not failed:
        raise psycopg.OperationalError("\n".join(unresolved))
    raise _combined(failed)


def _addresses(backend: Backend, host: str, port: int) -> list[str]:
    return list(dict.fromkeys(str(row[4][0]) for row in backend.resolve(host, port)))


def _described(dsn: str) -> str:
    attempt = conninfo_to_dict(dsn)
    wanted = (attempt.get("host"), attempt.get("port"), attempt.get("hostaddr"))
    return "host: {!r}, port: {!r}, hostaddr: {!r}".format(*wanted)


def _combined(failed: list[tuple[Any, str]]) -> Exception:
    """Return the last error, and if there are more, psycopg's text with all of them."""
    last: Exception = failed[-1][0].with_traceback(None)
    if len(failed) == 1:
        return last
    lines = [str(last), "Multiple connection attempts failed. All failures were:"]
    lines += [f"- {where}: {error}" for error, where in failed]
    return type(last)("\n".join(lines), pgconn=failed[-1][0].pgconn)  # type: ignore[call-arg]
