"""What the monitor shows of the process: its pools, multiplexers and listeners."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from greenpg.multiplexer import Multiplexer, all_multiplexers
from greenpg.notify import Listener, all_listeners
from greenpg.pool.core import Pool, all_pools

One: TypeAlias = "Pool | Multiplexer | Listener"


class Watched(NamedTuple):
    """All objects that are not closed, by kind; `pools` has none of a multiplexer's."""

    pools: list[Pool]
    multiplexers: list[Multiplexer]
    listeners: list[Listener]

    def all(self) -> list[One]:
        """Return the objects of all kinds."""
        return [*self.pools, *self.multiplexers, *self.listeners]

    def named(self) -> list[tuple[str, One]]:
        """Return the objects of all kinds, each with the name of its kind."""
        return [
            *(("pool", one) for one in self.pools),
            *(("multiplexer", one) for one in self.multiplexers),
            *(("listener", one) for one in self.listeners),
        ]


def watched() -> Watched:
    """Return what is there now."""
    multiplexers = all_multiplexers()
    inner = {pool_of(one) for one in multiplexers}
    pools = [pool for pool in all_pools() if not (pool.gone or pool in inner)]
    return Watched(pools, multiplexers, all_listeners())


def pool_of(multiplexer: Multiplexer) -> Pool:
    """Return the pool that makes a multiplexer's connections, which is no other one's."""
    pool: Any = multiplexer._pool._pool
    return pool  # type: ignore[no-any-return]


class Flow(NamedTuple):
    """How much was done since the start, and how long those who asked waited for it in all.

    `oldest_wait` is that of a task which still waits.
    """

    done: int
    waited: float
    oldest_wait: float


def flow(one: One) -> Flow:
    """Return a pool's loans, a multiplexer's answers or a listener's notifications."""
    if isinstance(one, Listener):
        return Flow(one.get_stats()["notifications"], 0.0, 0.0)
    if isinstance(one, Multiplexer):
        asked = one.measures()
        return Flow(asked.answered, asked.answer_time, max(asked.oldest_wait, _longest(one)))
    lent = one.measures()
    return Flow(sum(lent.waits.counts), lent.waits.total, lent.oldest_wait)


def _longest(multiplexer: Multiplexer) -> float:
    return max((line.seconds for line in multiplexer.lines()), default=0.0)
