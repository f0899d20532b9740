"""An embedded server with a role that needs a password, and TLS before it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from greenpg.embedded import EmbeddedServer, running
from greenpg_conformance.harness.tests import Skip
from greenpg_conformance.toolkit.observer import Observer
from greenpg_conformance.toolkit.proxy import Proxy

NAME: Final = "db.greenpg.test"
ROLE: Final = "scrammed"
PASSWORD: Final = "s3cret-Wort"
RULES: Final = f"""
local all all trust
host all {ROLE} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


@dataclass(frozen=True, slots=True)
class Secured:
    """The server, its port for TLS, and the authority that signed the certificate there."""

    server: EmbeddedServer
    tls_port: int
    authority: Path

    def dsn(self, **options: object) -> dict[str, Any]:
        """Return connection parameters of the role that needs a password, without TLS."""
        base = {"host": "127.0.0.1", "port": self.server.port, "dbname": "postgres"}
        return {**base, "user": ROLE, **options}


@contextmanager
def secured() -> Iterator[Secured]:
    """Run the server for the length of the block."""
    try:
        with running() as server, tempfile.TemporaryDirectory() as directory:
            certificate, authority = _certify(Path(directory))
            (server.data / "pg_hba.conf").write_text(RULES)
            observer = Observer(server.dsn)
            observer.ask(f"create role {ROLE} login password '{PASSWORD}'")
            observer.ask("select pg_reload_conf()")
            observer.close()
            with Proxy(server.dsn, tls=certificate) as proxy:
                yield Secured(server, proxy.port, authority)
    except ModuleNotFoundError as err:
        raise Skip(str(err)) from err


def _certify(directory: Path) -> tuple[Path, Path]:
    """Make an authority, and a certificate with its key that it has signed."""
    (directory / "names").write_text(f"subjectAltName = DNS:{NAME}\n")
    _openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=greenpg-tests "
        "-keyout authority.key -out authority.crt",
        f"req -newkey rsa:2048 -nodes -subj /CN={NAME} -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial "
        "-days 2 -extfile names -out server.crt",
    )
    both = directory / "server.pem"
    both.write_text("".join((directory / f"server.{part}").read_text() for part in ("key", "crt")))
    return both, directory / "authority.crt"


def _openssl(directory: Path, *commands: str) -> None:
    for command in commands:
        order = ["openssl", *command.split()]
        done = subprocess.run(order, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
