"""The drivers that tests run over, and what the tests must know of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import psycopg2
from psycopg2 import extensions as ext
from psycopg2.errors import QueryCanceled

import greenpg
from greenpg._psycopg2 import cancel_request
from greenpg.errors import InFailedSqlTransaction

from .tests import PSYCOPG2_NAME, PSYCOPG_NAME, Skip

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

BOTH: Final = (PSYCOPG2_NAME, PSYCOPG_NAME)


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver's functions and error classes.

    `closed` says if an error is that of a closed connection. `beliefs` returns whether the driver
    takes a transaction to be open, and whether prepared; what else it believes must be right.
    `writing` is a statement that inserts a row into a table and then sleeps.
    """

    name: str
    connect: Callable[..., Any]
    error: type[Exception]
    operational: type[Exception]
    programming: type[Exception]
    cancelled: type[Exception]
    failed_transaction: type[Exception]
    closed: Callable[[BaseException | None], bool]
    beliefs: Callable[[Any], tuple[bool, bool]]
    writing: str
    older_libpq: Callable[[], AbstractContextManager[object]]


def _beliefs(conn: Any) -> tuple[bool, bool]:
    return conn.status == ext.STATUS_BEGIN, conn.status == ext.STATUS_PREPARED


PSYCOPG2: Final = Driver(
    name=PSYCOPG2_NAME,
    connect=greenpg.connect,
    error=psycopg2.Error,
    operational=psycopg2.OperationalError,
    programming=psycopg2.ProgrammingError,
    cancelled=QueryCanceled,
    failed_transaction=InFailedSqlTransaction,
    closed=lambda error: isinstance(error, psycopg2.InterfaceError),
    beliefs=_beliefs,
    writing="insert into {} values (%s, %s); select pg_sleep(%s)",
    older_libpq=lambda: patch.object(cancel_request, "can_cancel_stepwise", return_value=False),
)


def find(name: str) -> Driver:
    """Return a driver; Skip if it is not installed."""
    if name == PSYCOPG2_NAME:
        return PSYCOPG2
    try:
        importlib.import_module("greenpg.psycopg3")  # which says what is missing
        module = importlib.import_module("greenpg_conformance.harness.psycopg3")
    except ImportError as missing:
        raise Skip(str(missing)) from missing
    found: Driver = module.PSYCOPG
    return found
