"""Fixtures of tests with a program in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenpg._helper_process import Child


@pytest.fixture(params=["threads", "gevent", "eventlet"])
def program(request: pytest.FixtureRequest, dsn: str) -> Iterator[Callable[..., Any]]:
    """Order a program with a monitor, `tests.green.monitored`, on each backend."""
    child = Child("tests.green.monitored", request.param, env={**os.environ, "GREENPG_DSN": dsn})
    yield lambda order, **details: child.ask(order, **details)["value"]
    child.close()
