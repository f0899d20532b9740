"""The choice between psycopg2 and psycopg 3, which Django makes once per process.

Django prefers psycopg 3 if it can be imported (django/db/backends/postgresql/psycopg_any.py).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

DECIDERS: Final = (
    "django.db.backends.postgresql.psycopg_any",
    "django.db.backends.postgresql.base",
)
TOO_LATE: Final = (
    "use_psycopg2() was called after Django had chosen psycopg 3; put these lines at the top of "
    "the settings module, before anything of Django's PostgreSQL modules is imported, or "
    "uninstall the package psycopg:\n"
    "    from greenpg.django import use_psycopg2\n"
    "    use_psycopg2()"
)


def use_psycopg2() -> None:
    """Make Django use psycopg2 in this process even if psycopg 3 is installed.

    To be called at the top of a settings module. Raises ImproperlyConfigured if Django has already
    chosen psycopg 3.
    """
    _refuse_psycopg3()
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None stops an import
    loaded = {"psycopg": modules["psycopg"]} if "psycopg" in modules else {}
    modules["psycopg"] = None
    try:
        for name in DECIDERS:
            import_module(name)
    finally:
        del modules["psycopg"]
        modules.update(loaded)


def _refuse_psycopg3() -> None:
    from django.core.exceptions import ImproperlyConfigured  # settings may load before Django

    chosen = [sys.modules[name] for name in DECIDERS if name in sys.modules]
    if any(module.is_psycopg3 for module in chosen):
        raise ImproperlyConfigured(TOO_LATE)
