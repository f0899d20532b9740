"""The tests: collected here, written there."""

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest

# the original tells by the driver's name which cursors to look at in this way
ServerSideCursorsTest._is_server_side = (  # type: ignore[method-assign]  # as said
    lambda self, cursor: bool(cursor.name)
)
