"""The backend of a monitor for which none is given: a wrong one would hold up the event loop."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from greenpg._connecting.monkey_patches import library
from greenpg.backend import as_backend, chosen, current
from greenpg.errors import BackendError
from greenpg.pool.core import all_pools

if TYPE_CHECKING:
    from greenpg.backend import Backend


def fitting_backend() -> Backend:
    """Return the chosen backend, else the monkey-patch's, else that of a green pool in use."""
    found = chosen()
    if found is not None:
        return found
    patched_by = library()
    if patched_by is not None:
        with suppress(BackendError):  # no library of ours
            return as_backend(patched_by)
    used = (pool.backend for pool in all_pools())
    green = (backend for backend in used if backend and "hub" in backend.capabilities)
    return next(green, None) or current()
