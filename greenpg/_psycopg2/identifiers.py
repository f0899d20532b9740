"""Identifiers in SQL."""

from __future__ import annotations

from typing import Any

from psycopg2 import extensions as ext


def quoted(conn: Any, name: Any) -> str:
    """Return an SQL identifier, on whichever client encoding.

    psycopg2's quote_ident encodes a str in UTF-8 and reads the result in the connection's encoding.
    """
    if isinstance(name, str):
        name = name.encode(ext.encodings[conn.encoding])
    return ext.quote_ident(name, conn)
