"""Replication: psycopg2's cursor and connections for it, green, and `follow`."""

from psycopg2.extras import REPLICATION_LOGICAL, REPLICATION_PHYSICAL, StopReplication

from ._cursor import (
    LogicalReplicationConnection,
    PhysicalReplicationConnection,
    ReplicationCursor,
    ReplicationMessage,
    follow,
)

__all__ = [
    "REPLICATION_LOGICAL",
    "REPLICATION_PHYSICAL",
    "LogicalReplicationConnection",
    "PhysicalReplicationConnection",
    "ReplicationCursor",
    "ReplicationMessage",
    "StopReplication",
    "follow",
]
