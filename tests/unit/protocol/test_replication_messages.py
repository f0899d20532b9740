"""The replication stream's messages, and the positions that feedback reports."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import OperationalError

from greenpg._protocol.replication_messages import (
    DATA,
    HEADER,
    KEEPALIVE,
    Progress,
    data_header,
    feedback,
    keepalive,
    moment,
)

positions = st.integers(0, 2**64 - 1)
times = st.integers(-(2**63), 2**63 - 1)
payloads = st.binary(min_size=1, max_size=200)
near = st.integers(0, 1000)


def data_message(start: int, end: int, sent: int, payload: bytes) -> bytes:
    return b"w" + struct.pack(">QQq", start, end, sent) + payload


@given(positions, positions, times, payloads)
def test_data_message_is_taken_apart(start, end, sent, payload):
    message = data_message(start, end, sent, payload)

    assert message[0] == DATA
    assert data_header(message[:HEADER]) == (start, end, sent)
    assert message[HEADER:] == payload


@given(positions, times, st.booleans())
def test_keepalive_is_taken_apart(end, sent, reply):
    message = b"k" + struct.pack(">Qq?", end, sent, reply)

    assert message[0] == KEEPALIVE
    assert keepalive(message) == (end, reply)


@given(st.binary(max_size=HEADER - 1))
def test_short_data_message_is_refused(message):
    with pytest.raises(OperationalError, match="data message header too small"):
        data_header(message)


@given(st.binary(max_size=17))
def test_short_keepalive_is_refused(message):
    with pytest.raises(OperationalError, match="keepalive message header too small"):
        keepalive(message)


@given(positions, positions, positions, st.floats(0, 2e9), st.booleans())
def test_feedback_has_the_protocols_layout(write, flush, apply, now, reply):
    message = feedback(write, flush, apply, now, reply)

    kind, *reported, sent, wants = struct.unpack(">cQQQqB", message)
    assert kind == b"r"
    assert reported == [write, flush, apply]
    assert abs(sent / 1e6 + 946_684_800 - now) < 1e-3
    assert wants == reply


@given(st.integers(0, 2**51))
def test_moment_counts_from_the_year_2000(microseconds):
    epoch = datetime(2000, 1, 1, tzinfo=timezone.utc)

    local = moment(microseconds).astimezone(timezone.utc)

    assert abs(local - epoch - timedelta(microseconds=microseconds)) < timedelta(milliseconds=1)


class Consumer:
    """A stream's calls of a Progress, and its invariants."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.received = 0
        self.confirmed = 0

    def act(self, kind: str, position: int) -> None:
        flushed = self.progress.flush
        if kind == "data":
            self.progress.received(position, position)
            self.received = max(self.received, position)
        elif kind == "confirm":
            self.progress.confirm(0, position, 0)
            self.confirmed = max(self.confirmed, position)
        else:
            self.progress.kept_alive(position)
        assert self.progress.flush >= flushed
        assert self.progress.confirmed == self.confirmed


actions = st.lists(st.tuples(st.sampled_from(["data", "confirm", "keepalive"]), near))


@given(actions)
def test_positions_never_go_back(done):
    consumer = Consumer()

    for kind, position in done:
        consumer.act(kind, position)


@given(actions, near, near)
def test_data_that_is_not_confirmed_holds_flush_back(done, position, wal_end):
    consumer = Consumer()
    for kind, at in done:
        consumer.act(kind, at)
    consumer.act("data", max(consumer.confirmed, position) + 1)
    flushed = consumer.progress.flush

    consumer.act("keepalive", wal_end)

    assert consumer.progress.flush == flushed


@given(actions, near)
def test_flush_follows_the_server_when_all_is_confirmed(done, wal_end):
    consumer = Consumer()
    for kind, at in done:
        consumer.act(kind, at)
    consumer.act("confirm", consumer.received)

    consumer.act("keepalive", wal_end)

    assert consumer.progress.flush >= wal_end
    assert consumer.progress.wal_end == wal_end


@given(near, near, near, near)
def test_feedback_contains_the_furthest_positions(one, other, write, apply):
    progress = Progress()
    progress.confirm(write, one, 0)
    progress.confirm(0, other, apply)

    reported = struct.unpack(">cQQQqB", progress.feedback(1e9, True))

    assert reported[1:4] == (write, max(one, other), apply)


def test_message_without_a_position_confirms_nothing():
    progress = Progress()
    progress.received(100, 100)
    progress.confirm(0, 50, 0)

    progress.received(0, 100)
    progress.kept_alive(200)

    assert progress.flush == 50
