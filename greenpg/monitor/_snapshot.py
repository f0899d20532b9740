"""What the monitor shows of the process, as JSON.

Unless `details` are asked for, it has no text that may contain a query or a value: of an error
its class and SQLSTATE, of a stack the places without the source, of a task no arguments. The
texts of statements have no literals even then.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import greenpg
from greenpg.stalls import watches
from greenpg.sync import counts

from ._history import KEPT, STEP
from ._watched import pool_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from greenpg.backend import Backend
    from greenpg.multiplexer import LineReport, Multiplexer
    from greenpg.notify import Listener
    from greenpg.pool.core import Failure, Holder, Pool, Waiting

    from ._history import History
    from ._watched import One, Watched

Json: TypeAlias = dict[str, Any]

MOST: Final = 200  # holders in all, waiters, and a listener's channels; the oldest of each pool
FEWEST: Final = 10  # of a pool
LONGEST: Final = 2000  # characters of an error's text
STARTED: Final = time.time()
PLACE: Final = '  File "'  # begins a frame of a stack; the source line follows (traceback)
# no statement of the program's: connections, authorization, resources, operators
PLAIN: Final = {"08", "28", "3D", "53", "57"}


def snapshot(
    backend: Backend, watched: Watched, history: History, *, details: bool = False
) -> Json:
    """Return what is shown now, without the samples of the past."""
    pools, multiplexers, listeners = watched
    most = max(MOST // max(len(pools), 1), FEWEST)
    return {
        "at": time.time(),
        "sample": history.number,
        "process": _process(backend),
        "kept": KEPT,
        "step": STEP,
        "pools": [_series(pool, history) | _pool(pool, most, details) for pool in pools],
        "multiplexers": [
            _series(one, history) | _multiplexer(one, details) for one in multiplexers
        ],
        "listeners": [_series(one, history) | _listener(one) for one in listeners],
        "errors": _errors(watched, details),
        "stalls": _stalls(details),
    }


def _process(backend: Backend) -> Json:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "backend": backend.name,
        "version": greenpg.version,
        "python": platform.python_version(),
        "started": STARTED,
        "interrupts": dict(counts.interrupts),
        "cancels": counts.cancels,
        "failed_repairs": counts.failed_repairs,
    }


def _series(one: One, history: History) -> Json:
    series = history.of(one)
    last = series.samples[-1] if series.samples else None
    return {"key": series.key, "name": one.name, "last": last}


def _pool(pool: Pool, most: int, details: bool) -> Json:
    numbers = pool.measures()
    return {
        **_connections(pool),
        "waiting": numbers.waiting,
        "oldest_wait": numbers.oldest_wait,
        "served": sum(numbers.waits.counts),
        "timeouts": numbers.timeouts,
        "holders": [_holder(holder, details) for holder in pool.holders(most)],
        "waiters": _places(pool.waiters(most)),
    }


def _connections(pool: Pool) -> Json:
    numbers = pool.measures()
    return {
        "max": pool.limits.max_size,
        "in_use": numbers.in_use,
        "idle": numbers.idle,
        "connecting": numbers.connecting,
        "closed": dict(numbers.closed),
    }


def _multiplexer(multiplexer: Multiplexer, details: bool) -> Json:
    slowest = multiplexer.slowest() if details else []
    return {
        **_connections(pool_of(multiplexer)),
        **asdict(multiplexer.measures()),
        "lines": [_line(line, details) for line in multiplexer.lines()],
        "slowest": [{"text": text[:LONGEST], "seconds": seconds} for text, seconds in slowest],
    }


def _line(line: LineReport, details: bool) -> Json:
    text = line.text[:LONGEST] if details and line.text else None
    return {**asdict(line), "text": text}


def _listener(listener: Listener) -> Json:
    by_number = sorted(listener.subscribers().items(), key=lambda pair: (-pair[1], pair[0]))
    listened = [{"name": name, "subscribers": count} for name, count in by_number[:MOST]]
    return {"state": listener.state, **listener.get_stats(), "listened": listened}


def _holder(holder: Holder, details: bool) -> Json:
    return {
        "place": holder.place,
        "seconds": holder.seconds,
        "state": holder.state,
        "pid": holder.pid,
        "task": task_name(holder.task),
        "stack": None if holder.stack is None else stack(holder.stack, details),
    }


def _places(waiters: Iterable[Waiting]) -> list[Json]:
    """Return where tasks wait, with the longest wait and the number of each place."""
    found: dict[str, Json] = {}
    for waiter in waiters:
        place = found.setdefault(waiter.place, {"place": waiter.place, "seconds": 0.0, "count": 0})
        place["seconds"] = max(place["seconds"], waiter.seconds)
        place["count"] += 1
    return list(found.values())


def _errors(watched: Watched, details: bool) -> list[Json]:
    found = [
        (failure, f"{kind} {one.name}")
        for kind, one in watched.named()
        for failure in one.failures()
    ]
    found.sort(key=lambda pair: -pair[0].at)
    return [
        {
            "at": failure.at,
            "source": source,
            "what": failure.what,
            "error": failure.error.__name__,
            "sqlstate": failure.sqlstate,
            "text": failure.text[:LONGEST] if details or is_plain(failure) else None,
            "count": failure.count,
        }
        for failure, source in found
    ]


def is_plain(failure: Failure) -> bool:
    """Return True if an error's text quotes neither a statement of the program nor a value."""
    operational = any(kind.__name__ == "OperationalError" for kind in failure.error.__mro__)
    return operational and (failure.sqlstate is None or failure.sqlstate[:2] in PLAIN)


def _stalls(details: bool) -> Json:
    running = watches()
    found = sorted((stall for watch in running for stall in watch.stalls), key=lambda one: -one.at)
    return {
        "watched": bool(running),
        "count": counts.stalls,
        "seconds": counts.stalled,
        "last": [
            {"at": stall.at, "seconds": stall.seconds, "stack": stack(stall.stack, details)}
            for stall in found
        ],
    }


def stack(text: str, details: bool) -> str:
    """Return a stack; without details, only the places: source may have queries and values."""
    lines = text.splitlines()
    places = [line for line in lines if line.startswith(PLACE)]
    return "\n".join(lines if details or not places else places)


def task_name(task: Any) -> str | None:
    """Return a task's name or number; a repr may show the arguments of its function."""
    if task is None:
        return None
    name = getattr(task, "name", None) or getattr(task, "ident", None)
    return str(name or f"{type(task).__name__} {id(task):#x}")
