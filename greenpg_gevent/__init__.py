"""greenpg for gevent."""

from greenpg import ConnectionLock
from greenpg.patch import patcher

from ._backend import backend

__all__ = ["ConnectionLock", "backend", "patch_psycopg", "unpatch_psycopg"]

patch_psycopg, unpatch_psycopg = patcher(backend)
