"""What a health check of a pool has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """How long a loan with a query took, and why it failed if it did.

    The error is a PoolTimeout if no connection was free in time, whose cause is the last failed
    connect, if any: without a cause the pool is merely busy.
    """

    seconds: float
    error: Exception | None

    @property
    def ok(self) -> bool:
        """True if the server has answered in time."""
        return self.error is None
