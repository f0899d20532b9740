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
REMEDY: Final = (
    "greenpg works on psycopg2, but Django has chosen psycopg 3, because it is installed too. "
    "Uninstall the package psycopg, or put these lines at the top of the settings module:\n"
    "    from greenpg.django import use_psycopg2\n"
    "    use_psycopg2()"
)


def use_psycopg2() -> None:
    """Make Django use psycopg2 in this process even if psycopg 3 is installed.

    To be called at the top of a settings module. Raises ImproperlyConfigured if Django has already
    chosen psycopg 3.
    """
    require_psycopg2()
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None stops an import
    loaded = {"psycopg": modules["psycopg"]} if "psycopg" in modules else {}
    modules["psycopg"] = None
    try:
        for name in DECIDERS:
            import_module(name)
    finally:
        del modules["psycopg"]
        modules.update(loaded)


def require_psycopg2() -> None:
    """Raise ImproperlyConfigured, with a remedy in its text, if Django has chosen psycopg 3."""
    from django.core.exceptions import ImproperlyConfigured  # settings may load before Django

    chosen = [sys.modules[name] for name in DECIDERS if name in sys.modules]
    if any(module.is_psycopg3 for module in chosen):
        raise ImproperlyConfigured(REMEDY)
