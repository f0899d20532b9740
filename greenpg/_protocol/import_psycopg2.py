"""Imports psycopg2 without ssl, which must not come before a program's monkey-patch."""

import sys

if "ssl" in sys.modules:
    import psycopg2
else:
    # psycopgmodule.c imports ssl for OpenSSL before 1.1, and ignores a failure
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes the import fail
    try:
        import psycopg2  # noqa: F401
    finally:
        del sys.modules["ssl"]
