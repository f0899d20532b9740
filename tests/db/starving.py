"""Backends whose tasks cannot be started, or are killed before they begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from greenpg.backend import current


class Spawns:
    """Counts tasks; those numbered in `chosen`, from 0, never begin."""

    def __init__(self, chosen: range, kills: bool) -> None:
        self._chosen, self._kills = chosen, kills
        self._spawn = type(current()).spawn
        self.count = 0

    def __call__(self, backend: Any, fn: Any, *args: Any) -> Any:
        number, self.count = self.count, self.count + 1
        if number not in self._chosen:
            return self._spawn(backend, fn, *args)
        if not self._kills:
            raise RuntimeError("can't start new thread")
        task = self._spawn(backend, fn, *args)
        task.kill()
        return task


@contextmanager
def starved(chosen: range, *, kills: bool = False) -> Iterator[Spawns]:
    """Let tasks with these numbers fail to start during the block, or kill them at once."""
    spawns = Spawns(chosen, kills)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(current()), "spawn", lambda *args: spawns(*args))
        yield spawns
