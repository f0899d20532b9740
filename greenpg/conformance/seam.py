"""The rules of the seam: waits, events, tasks and threads of a backend, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._context import Context


def test_wait_tells_what_is_ready(ctx: Context) -> None:
    assert 1 + 1 == 2
