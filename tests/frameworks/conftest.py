"""What the frameworks' own suites require."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from greenpg.embedded import EmbeddedServer
from tests.upstream.server import ServerError, newest_binaries


@pytest.fixture(scope="session")
def complete_server() -> Iterator[str]:
    """A server with contrib modules; its DSN."""
    try:
        binaries = newest_binaries()
    except ServerError as error:
        pytest.skip(str(error))
    server = EmbeddedServer(binaries=binaries)
    yield server.dsn
    server.stop()
