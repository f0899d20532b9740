"""Which library has monkey-patched this process."""

from __future__ import annotations

import sys
from typing import Final

PATCHABLE: Final = {  # what waits in each module, and is replaced by every library that patches it
    "socket": ("socket", "socket"),
    "select": ("select", "select"),
    "time": ("time", "sleep"),
    "thread": ("_thread", "start_new_thread"),
}


def owners() -> dict[str, str]:
    """Return the library that has replaced the waiting of each module; no module is imported."""
    found = {}
    for title, (module, name) in PATCHABLE.items():
        function = getattr(sys.modules.get(module), name, None)
        owner = str(getattr(function, "__module__", None) or module).partition(".")[0]
        if owner not in sys.stdlib_module_names:
            found[title] = owner
    return found


def library() -> str | None:
    """Return the library that has patched this process, the first one if there are several."""
    return next(iter(owners().values()), None)
