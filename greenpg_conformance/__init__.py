"""The shipped conformance suite: one child process per backend and mode."""

from .harness.describe import Description, Mode

__all__ = ["Description", "Mode"]
