"""COPY: `cursor.copy()` with psycopg 3's methods, and psycopg2's copy methods."""

from ._block import Copy
from ._file import FileTransfer, command

__all__ = ["Copy", "FileTransfer", "command"]
