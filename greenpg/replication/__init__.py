"""Replication: psycopg2's cursor and connections for it, green, and `follow`."""

from ._cursor import (
    REPLICATION_LOGICAL,
    REPLICATION_PHYSICAL,
    LogicalReplicationConnection,
    PhysicalReplicationConnection,
    ReplicationCursor,
    ReplicationMessage,
    StopReplication,
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
