"""Django's PostgreSQL backend on green connections: `"ENGINE": "greenpg.django"`."""

from ._choice import use_psycopg2

__all__ = ["use_psycopg2"]
