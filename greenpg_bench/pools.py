"""How each pool, used as its manual says, lends an autocommitting connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .drivers import connector
from .hosts import HOSTS, crew

if TYPE_CHECKING:
    from .model import Contender

    Lend = Callable[[], AbstractContextManager[Any]]


def _autocommit(conn: Any) -> None:
    conn.autocommit = True


def _filled(module: str, contender: Contender, dsn: str, size: int, **options: bool) -> Any:
    connector(contender)
    make = import_module(module).ConnectionPool
    pool = make(dsn, min_size=size, configure=_autocommit, **options)
    pool.wait()
    return pool.connection


def _queue_pool(contender: Contender, dsn: str, size: int) -> Lend:
    make = import_module("sqlalchemy.pool").QueuePool
    pool = make(partial(connector(contender), dsn), pool_size=size, max_overflow=0)
    return lambda: closing(pool.connect())


def _db_pool(contender: Contender, dsn: str, size: int) -> Any:
    make = import_module("eventlet.db_pool").RawConnectionPool
    module = SimpleNamespace(connect=connector(contender))
    return make(module, min_size=size, max_size=size, dsn=dsn).item


class ExamplePool:
    """What gevent's example psycopg2_pool.py does: a queue of connections, made when it is dry."""

    def __init__(self, contender: Contender, dsn: str, size: int) -> None:
        self._queue = crew(HOSTS[contender.host], size).queue()
        self._connect = partial(connector(contender), dsn)
        self._left = size

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Lend a connection."""
        conn: Any = self._get()
        try:
            yield conn
        except BaseException:
            conn.rollback()
            raise
        else:
            conn.commit()
        finally:
            self._queue.put(conn)

    def _get(self) -> Any:
        if not self._left:
            return self._queue.get()
        self._left -= 1
        return self._connect()


POOLS: dict[str, Callable[[Contender, str, int], Lend]] = {
    "greenpg": partial(_filled, "greenpg.pool"),
    "psycopg_pool": partial(_filled, "psycopg_pool", open=True),
    "QueuePool": _queue_pool,
    "db_pool": _db_pool,
    "example": lambda contender, dsn, size: ExamplePool(contender, dsn, size).connection,
}


def lender(contender: Contender, dsn: str, size: int) -> Lend:
    """Return what lends connections of a filled pool, each for a with block."""
    return POOLS[contender.driver](contender, dsn, size)
