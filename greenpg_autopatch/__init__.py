"""A gevent plug-in that patches psycopg2 with greenpg if GREENPG_PATCH is 1.

It is a package of its own because every program that calls `patch_all()` imports it (gevent
manual, `gevent.events`, "gevent.plugins.monkey.did_patch_builtins"), and few use greenpg.
"""

from __future__ import annotations

import os
import warnings
from typing import Final

__all__ = ["did_patch_builtins"]

VARIABLE: Final = "GREENPG_PATCH"
PATCH_ALL_CALLER: Final = 6  # stack levels above the warning
_warned = False


def did_patch_builtins(event: object) -> None:
    """Patch psycopg2, now that `gevent.monkey.patch_all()` has patched the standard library."""
    asked = os.environ.get(VARIABLE, "")
    if asked == "1":
        from greenpg_gevent import patch_psycopg  # late: other programs must not load greenpg

        patch_psycopg()
    elif asked not in ("", "0"):
        _warn(asked)


def _warn(asked: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"{VARIABLE}={asked!r} is neither 1 nor 0, so psycopg2 was not patched; "
            f"set {VARIABLE}=1 to make gevent.monkey.patch_all() patch psycopg2",
            RuntimeWarning,
            stacklevel=PATCH_ALL_CALLER,
        )
