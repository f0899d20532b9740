"""SQLAlchemy on greenpg: the dialect `postgresql+greenpg://` and its pool."""

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401  a clearer error than that of the modules below
except ImportError as err:
    raise ImportError(
        "greenpg.sqlalchemy requires SQLAlchemy; pip install 'greenpg[sqlalchemy]'"
    ) from err

from ._dialect import GreenDialect
from ._pool import GreenQueuePool

__all__ = ["GreenDialect", "GreenQueuePool"]
