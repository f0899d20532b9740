"""What differs between the drivers, for the one that Django has chosen."""

from django.db.backends.postgresql.psycopg_any import is_psycopg3

if is_psycopg3:
    from ._psycopg3 import DRIVER, Database, as_green, leave_json
else:
    from ._psycopg2 import DRIVER, Database, as_green, leave_json  # type: ignore[assignment]

__all__ = ["DRIVER", "Database", "as_green", "leave_json"]
