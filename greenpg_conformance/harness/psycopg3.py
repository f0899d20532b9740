"""psycopg 3 as the tests know it."""

from __future__ import annotations

from typing import Any, Final
from unittest.mock import patch

import psycopg
from psycopg import errors, pq
from psycopg._capabilities import capabilities

from greenpg import psycopg3

from .drivers import Driver
from .tests import PSYCOPG_NAME

OPEN: Final = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


def _is_closed(error: BaseException | None) -> bool:
    return isinstance(error, psycopg.OperationalError) and "connection is closed" in str(error)


def _beliefs(conn: Any) -> tuple[bool, bool]:
    assert not conn._num_transactions, "psycopg believes in a block"
    assert conn._pipeline is None, "psycopg believes in a pipeline"
    assert conn.pgconn.pipeline_status == pq.PipelineStatus.OFF, "libpq is in pipeline mode"
    return conn.info.transaction_status in OPEN, bool(conn._tpc and conn._tpc[1])


PSYCOPG: Final = Driver(
    name=PSYCOPG_NAME,
    connect=psycopg3.connect,
    error=psycopg.Error,
    operational=psycopg.OperationalError,
    programming=psycopg.ProgrammingError,
    cancelled=errors.QueryCanceled,
    failed_transaction=errors.InFailedSqlTransaction,
    closed=_is_closed,
    beliefs=_beliefs,
    writing="with row as (insert into {} values (%s, %s) returning id) "
    "select pg_sleep(%s) from row",
    older_libpq=lambda: patch.object(capabilities, "has_cancel_safe", return_value=False),
)
