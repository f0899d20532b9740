"""A gevent plug-in that patches the drivers which GREENPG_PATCH names; 1 means psycopg2.

It is a package of its own because every program that calls `patch_all()` imports it (gevent
manual, `gevent.events`, "gevent.plugins.monkey.did_patch_builtins"), and few use greenpg.
"""

from __future__ import annotations

import os
import warnings
from typing import Final

__all__ = ["did_patch_builtins"]

VARIABLE: Final = "GREENPG_PATCH"
PATCHES: Final = {"1": "patch_psycopg", "psycopg2": "patch_psycopg", "psycopg3": "patch_psycopg3"}
PATCH_ALL_CALLER: Final = 6  # stack levels above the warning
_warned = False


def did_patch_builtins(event: object) -> None:
    """Patch the drivers, now that `gevent.monkey.patch_all()` has patched the standard library."""
    asked = os.environ.get(VARIABLE, "")
    if asked in ("", "0"):
        return
    names = asked.split(",")
    if not PATCHES.keys() >= set(names):
        _warn(asked)
        return
    import greenpg_gevent  # late: other programs must not load greenpg

    for name in names:
        getattr(greenpg_gevent, PATCHES[name])()


def _warn(asked: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"{VARIABLE}={asked!r} is neither 1, psycopg2, psycopg3 or psycopg2,psycopg3 nor 0, so "
            f"no driver was patched; set {VARIABLE}=1 to make gevent.monkey.patch_all() patch "
            "psycopg2",
            RuntimeWarning,
            stacklevel=PATCH_ALL_CALLER,
        )
