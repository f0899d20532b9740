"""Which of psycopg2 and psycopg 3 Django works with; it decides once in a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final

__all__ = ["require_psycopg2", "use_psycopg2"]

DECIDERS: Final = (
    "django.db.backends.postgresql.psycopg_any",
    "django.db.backends.postgresql.base",
)
REMEDY: Final = (
    "greenpg works on psycopg2, but Django has chosen psycopg 3, because that is installed too. "
    "Uninstall the package psycopg, or put these lines at the top of the settings module:\n"
    "    from greenpg.django import use_psycopg2\n"
    "    use_psycopg2()"
)


def use_psycopg2() -> None:
    """Have Django work with psycopg2 in this process, though psycopg 3 is installed too.

    For the top of a settings module. ImproperlyConfigured if Django has chosen already.
    """
    require_psycopg2()
    with _hidden("psycopg"):
        for name in DECIDERS:
            import_module(name)


def require_psycopg2() -> None:
    """Raise ImproperlyConfigured, which says what to do, if Django has chosen psycopg 3."""
    from django.core.exceptions import ImproperlyConfigured  # settings may load before Django

    chosen = [sys.modules[name] for name in DECIDERS if name in sys.modules]
    if any(module.is_psycopg3 for module in chosen):
        raise ImproperlyConfigured(REMEDY)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let imports of a package fail as if it were not installed."""
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None bars an import
    absent = object()
    found = modules.get(name, absent)
    modules[name] = None
    try:
        yield
    finally:
        if found is absent:
            del modules[name]
        else:
            modules[name] = found
