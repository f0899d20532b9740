"""Names of the green classes: what users may derive from leaves them all names but a few."""

from __future__ import annotations

import psycopg
import psycopg2
import pytest

import greenpg
from greenpg import psycopg3
from greenpg.cursor import NamedCursor
from greenpg.replication import ReplicationCursor

PREFIX = "_greenpg_"
PUBLIC = {
    "Connection": {"deadline", "exclusive", "listen", "pipeline"},
    "Cursor": {"copy", "stream"},
    "NamedCursor": set(),
    "Lobject": {"flush", "readable", "readinto", "seekable", "writable"},
    "GreenReplicationCursor": {"flush_lsn", "stop_replication"},
}
CLASSES = [
    greenpg.Connection,
    greenpg.Cursor,
    NamedCursor,
    greenpg.extensions.lobject,
    ReplicationCursor.__bases__[1],
]
C = {*dir(psycopg2._psycopg.ReplicationCursor), *dir(psycopg2._psycopg.connection)}
C |= {*dir(psycopg2._psycopg.lobject), "__module__", "__dict__", "__weakref__", "__annotations__"}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_names_are_psycopg2s_or_public_or_have_our_prefix(kind):
    names = {*vars(kind), *kind.__annotations__} - C

    assert {name for name in names if not name.startswith(PREFIX)} == PUBLIC[kind.__name__]


def test_every_green_class_is_looked_at():
    found = {kind for base in CLASSES for kind in [base, *base.__mro__] if "greenpg" in str(kind)}

    assert found == set(CLASSES)


@pytest.mark.parametrize(
    ("kind", "base", "public"),
    [
        (psycopg3.Connection, psycopg.Connection, {"deadline", "exclusive"}),
        (psycopg3.Cursor, psycopg.Cursor, set()),
        (psycopg3.ServerCursor, psycopg.ServerCursor, set()),
    ],
)
def test_names_are_psycopg3s_or_public_or_have_our_prefix(kind, base, public):
    ours = [one for one in kind.__mro__ if one.__module__.startswith("greenpg")]
    names = {name for one in ours for name in {*vars(one), *vars(one).get("__annotations__", ())}}

    found = {name for name in names - {*dir(base), "__dict__"} if not name.startswith(PREFIX)}
    assert found == public
