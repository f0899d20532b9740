"""A server at a distance: each answer arrives later."""

from __future__ import annotations

from greenpg_conformance.toolkit.proxy import Proxy


def away(dsn: str, seconds: float) -> str:
    """Return the DSN of the same server, at so many seconds of round trip."""
    proxy = Proxy(dsn)  # its process ends with this one
    proxy.delay(seconds)
    return proxy.dsn
