"""Makes greenpg believe that libpq is older than the installed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from greenpg._psycopg2 import cancel_request

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def older_libpq() -> AbstractContextManager[Any]:
    """Cancel queries as with a libpq before 17, for the block."""
    return patch.object(cancel_request, "can_cancel_stepwise", return_value=False)
