"""What the tests of notifications share."""

from __future__ import annotations

import pytest

NAMES = {
    "UTF8": 'j\u00f6rg "x"',
    "LATIN1": 'j\u00f6rg "x"',
    "SJIS": "\u8868",
    "GBK": "\u529f",
}


def payloads(notes):
    return [note.payload for note in notes]


@pytest.fixture(params=NAMES)
def encoding(request):
    """A client encoding."""
    return request.param


@pytest.fixture
def name(encoding):
    """The name of a channel that takes some care in the client encoding."""
    return NAMES[encoding]


@pytest.fixture
def notify(connect):
    """Send notifications from another connection."""
    other = connect()
    other.autocommit = True

    def send(channel, *payloads):
        for payload in payloads:
            other.cursor().execute("select pg_notify(%s, %s)", (channel, payload))

    return send
