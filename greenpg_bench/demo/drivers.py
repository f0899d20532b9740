"""The demo's drivers: how each connects, and how its tasks take turns on a connection."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2.extensions import make_dsn

import greenpg
from greenpg.errors import BackendError

from .job import APPLICATION, Job

if TYPE_CHECKING:
    from greenpg.backend import Backend

SEMAPHORES: Final = {"gevent": "gevent.lock", "eventlet": "eventlet.semaphore"}


def prepare(job: Job) -> None:
    """Patch the process as the driver asks for; BackendError if it is not installed."""
    if job.driver != "psycogreen":
        return
    if find_spec("psycogreen") is None:
        raise BackendError("psycogreen is not installed; pip install 'greenpg[demo]'")
    import_module(f"psycogreen.{job.backend}").patch_psycopg()


def connected(job: Job, backend: Backend) -> Any:
    """Return a connection in autocommit mode."""
    dsn = make_dsn(job.dsn, application_name=APPLICATION)
    green = job.driver == "greenpg"
    conn = greenpg.connect(dsn, backend=backend) if green else psycopg2.connect(dsn)
    conn.autocommit = True
    return conn


def turns(job: Job) -> AbstractContextManager[object]:
    """Return what a task must hold to use a connection; only psycogreen's users need it."""
    if job.driver != "psycogreen":
        return nullcontext()
    semaphore: AbstractContextManager[object] = import_module(SEMAPHORES[job.backend]).Semaphore()
    return semaphore
