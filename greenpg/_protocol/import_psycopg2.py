"""Imports psycopg2 without ssl, which must not come before a program's monkey-patch."""

import sys

if "ssl" in sys.modules:
    import psycopg2
else:
    # psycopg2's C code imports ssl for the sake of OpenSSL before 1.1, and goes on if that fails.
    sys.modules["ssl"] = None  # type: ignore[assignment]  # it makes the import fail
    try:
        import psycopg2  # noqa: F401
    finally:
        del sys.modules["ssl"]
