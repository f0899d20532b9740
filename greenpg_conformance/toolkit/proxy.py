"""A TCP proxy in another process that makes a server slow, mute or gone while a test runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from psycopg2.extensions import make_dsn, parse_dsn

from greenpg._helper_process import Child

__all__ = ["CERTIFICATE", "Proxy"]

Way: TypeAlias = Literal["down", "up", "both"]
Scope: TypeAlias = Literal["all", "present", "coming"]

CERTIFICATE: Final = Path(__file__).with_name("proxy.pem")  # for localhost and 127.0.0.1
NO_HOST: Final = "/tmp"  # where a libpq of a wheel looks when the DSN names no host


class Proxy:
    """Stands between a client and the server of a DSN; everything passes at first.

    `way` is "down" (what the server says), "up" (what the client says) or "both"; `scope` says
    which connections are meant: those at hand ("present"), those made later ("coming") or all.
    Each call replaces what was said before for the same way, and returns once it is in force.
    """

    def __init__(self, dsn: str, *, tls: bool | Path = False) -> None:
        """Start the proxy's process, which ends when this one does.

        With `tls` clients speak TLS to it, whatever the server can; CERTIFICATE, which is its own
        root, is replaced by the certificate and key in the file that `tls` names.
        """
        server: dict[str, Any] = parse_dsn(dsn)
        host = server.get("hostaddr") or server.get("host") or NO_HOST
        arguments = [host, str(server.get("port", 5432))]
        if tls:
            arguments.append(str(CERTIFICATE if tls is True else tls))
        self._child = Child(f"{__package__}.proxy_server", *arguments)
        self.port: Final[int] = self._child.greeting["port"]
        here: dict[str, Any] = {"host": "127.0.0.1", "hostaddr": "127.0.0.1", "port": self.port}
        self.dsn: Final = make_dsn(dsn, **here, **({"sslmode": "require"} if tls else {}))

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flow(self, way: Way = "both", scope: Scope = "all") -> None:
        """Let everything pass at once, what was held back included."""
        self._set(way, scope)

    def delay(self, seconds: float, way: Way = "down", scope: Scope = "all") -> None:
        """Deliver everything `seconds` later; the throughput stays."""
        self._set(way, scope, delay=seconds)

    def drip(self, size: int, pause: float, way: Way = "down", scope: Scope = "all") -> None:
        """Deliver `size` bytes at a time with a pause after each."""
        self._set(way, scope, size=size, pause=pause)

    def stall(self, way: Way = "both", scope: Scope = "all") -> None:
        """Deliver nothing, ends of file included, until `flow`; connections are still accepted."""
        self._set(way, scope, stalled=True)

    def cut(self) -> int:
        """Reset the present connections, on both sides; return how many there were."""
        return int(self._child.ask("cut")["links"])

    def refuse(self) -> None:
        """Close the listening socket: further connections are refused until `admit`."""
        self._child.ask("refuse")

    def admit(self) -> None:
        """Listen again, on the same port."""
        self._child.ask("admit")

    def links(self) -> int:
        """Return how many connections pass through now."""
        return int(self._child.ask("count")["links"])

    def accepted(self) -> int:
        """Return how many connections were accepted since the start."""
        return int(self._child.ask("count")["accepted"])

    def close(self) -> None:
        """End the proxy's process, and with it every connection through it."""
        self._child.close()

    def _set(self, way: Way, scope: Scope, **manner: Any) -> None:
        self._child.ask("set", way=way, scope=scope, manner=manner)
