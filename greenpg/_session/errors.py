"""The exception classes that a session raises: its driver's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorClasses:
    """A driver's classes, by what they mean."""

    error: type[Exception]  # the base of all that the driver raises
    interface: type[Exception]  # the connection is closed
    operational: type[Exception]  # the server cannot be used
    programming: type[Exception]  # the connection may not be used in this way
    deadline_exceeded: type[Exception]
    failed_transaction: type[Exception]  # only a rollback may follow
