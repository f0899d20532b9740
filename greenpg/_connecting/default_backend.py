"""The default backend of connections of either driver, and the warning that none was chosen."""

from __future__ import annotations

import sys
import warnings

from greenpg.backend import Backend, chosen, current
from greenpg.errors import NotGreenWarning

from .monkey_patches import library

_warned = False


def default_backend(patch: str = "patch_psycopg", depth: int = 4) -> Backend:
    """Return the default backend; in a patched process without a choice, warn once.

    `patch` is the plug-ins' function for the driver; `depth` leads from here to the program.
    """
    found = chosen()
    if found is None:
        _warn_if_patched(patch, depth + 1)
        found = current()
    return found


def warn_if_foreign(backend: Backend, depth: int) -> None:
    """Warn if another library than the backend's has patched this process.

    A backend that is not named after a library is trusted.
    """
    patched_by = library()
    if patched_by not in (None, backend.name) and backend.name in sys.modules:
        warnings.warn(
            f"this process is monkey-patched by {patched_by}, but greenpg's backend is "
            f"{backend.name}, so its PostgreSQL connections block every green thread of "
            f"{patched_by}; choose greenpg_{patched_by} instead",
            NotGreenWarning,
            stacklevel=depth,
        )


def _warn_if_patched(patch: str, depth: int) -> None:
    global _warned
    patched_by = None if _warned else library()
    if patched_by is not None:
        _warned = True
        warnings.warn(
            f"this process is monkey-patched by {patched_by}, but no greenpg backend was chosen, "
            f"so its PostgreSQL connections block every green thread; add\n"
            f"    from greenpg_{patched_by} import {patch}; {patch}()\n"
            f"or greenpg.use({patched_by!r}), or greenpg.use('threads') if you mean it",
            NotGreenWarning,
            stacklevel=depth,
        )
