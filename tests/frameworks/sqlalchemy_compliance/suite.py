"""SQLAlchemy's tests, imported so that pytest collects them here."""

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest

# the original does not know greenpg's driver names (sqlalchemy/testing/suite/test_results.py)
ServerSideCursorsTest._is_server_side = (  # type: ignore[method-assign]  # see above
    lambda self, cursor: bool(getattr(cursor, "name", None))
)
