"""A temporary PostgreSQL server for tests and demonstrations."""

from ._server import DEFAULTS, EmbeddedServer, running, server_dsn

__all__ = ["DEFAULTS", "EmbeddedServer", "running", "server_dsn"]
