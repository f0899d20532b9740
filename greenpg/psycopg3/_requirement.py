"""psycopg 3 is an extra: its absence and its age are errors that say what to install."""

from __future__ import annotations

from typing import Final

__all__: Final[list[str]] = []

_REMEDY: Final = (
    "greenpg.psycopg3 needs psycopg 3.2 or newer: pip install 'greenpg[psycopg3]' 'psycopg[binary]'"
)

try:
    import psycopg
except ImportError as error:  # for lack of libpq too: psycopg's text says so
    raise ImportError(f"{_REMEDY} ({error})") from error

if tuple(map(int, psycopg.__version__.split(".")[:2])) < (3, 2):
    raise ImportError(f"{_REMEDY} (psycopg is {psycopg.__version__})")
