"""Connection pools for green threads: fair, robust against kills, restarts and lost servers."""

from psycopg2.pool import (
    AbstractConnectionPool,
    PoolError,
    SimpleConnectionPool,
    ThreadedConnectionPool,
)

from greenpg._session.failures import Failure
from greenpg.errors import PoolClosed, PoolTimeout, TooManyRequests

from ._borrowers import Holder, Waiting
from ._connection_pool import ConnectionPool
from ._health import Health
from ._measures import Durations, Measures
from ._overview import log_pools, log_pools_on
from ._pool_set import PoolSet

__all__ = [
    "AbstractConnectionPool", "ConnectionPool", "Durations", "Failure", "Health", "Holder",
    "Measures", "PoolClosed", "PoolError", "PoolSet", "PoolTimeout", "SimpleConnectionPool",
    "ThreadedConnectionPool", "TooManyRequests", "Waiting", "log_pools", "log_pools_on",
]  # fmt: skip
