"""The options of a pool, for type checkers: those of `ConnectionPool.__init__`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from ._connections import Hook, Reset


class Options(TypedDict, total=False):
    """All but `conninfo` and `driver`, by which the overloads differ."""

    backend: str | Backend | None
    kwargs: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None
    min_size: int
    max_size: int | None
    open: bool | None
    timeout: float
    max_waiting: int
    max_lifetime: float
    max_idle: float
    max_uses: float
    reconnect_timeout: float
    reconnect_failed: Callable[[Any], object] | None
    configure: Hook | None
    check: Hook | None
    reset: Reset | None
    name: str | None
    application_name: str | None
    num_workers: int
    warn_held: float
    holder: Literal["line", "stack"]
    on_acquire: Hook | None
    on_release: Hook | None
    on_connect: Hook | None
    on_discard: Hook | None
    discard_on: tuple[type[BaseException], ...]
