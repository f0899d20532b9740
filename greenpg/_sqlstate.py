"""The SQLSTATE of an error, whichever driver has raised it."""

from __future__ import annotations


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of psycopg2 or psycopg 3; None for other exceptions."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
