"""What the tests of notifications share."""

from __future__ import annotations

import pytest


@pytest.fixture
def notify(connect):
    """Send notifications from another connection."""
    other = connect()
    other.autocommit = True

    def send(channel, *payloads):
        for payload in payloads:
            other.cursor().execute("select pg_notify(%s, %s)", (channel, payload))

    return send
