"""greenpg for gevent: the backend, the patch and a pool bound to gevent."""

from typing import TYPE_CHECKING

from greenpg import ConnectionLock
from greenpg.multiplexer import Multiplexer as _Multiplexer
from greenpg.patch import patcher, psycopg3_patcher
from greenpg.pool import ConnectionPool as _ConnectionPool

try:
    from ._backend import backend
except ModuleNotFoundError as err:
    if err.name != "gevent":
        raise
    raise ModuleNotFoundError(
        "greenpg_gevent needs gevent; pip install 'greenpg[gevent]'", name=err.name
    ) from None

__all__ = [
    "ConnectionLock", "ConnectionPool", "Multiplexer", "backend", "patch_psycopg", "patch_psycopg3",
    "unpatch_psycopg", "unpatch_psycopg3",
]  # fmt: skip

patch_psycopg, unpatch_psycopg = patcher(backend)
patch_psycopg3, unpatch_psycopg3 = psycopg3_patcher(backend)


if TYPE_CHECKING:  # overloads by the driver, which would not give a subclass its own type
    ConnectionPool = _ConnectionPool
else:

    class ConnectionPool(_ConnectionPool):
        """greenpg's pool with gevent as its backend, whatever the default backend is."""

        default_backend = backend


class Multiplexer(_Multiplexer):
    """greenpg's multiplexer with gevent as its backend, whatever the default backend is."""

    default_backend = backend
