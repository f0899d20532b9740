"""The monitor's page for a terminal, drawn by rich."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.text import Text

if TYPE_CHECKING:
    from ._snapshot import Json

BAR: Final = 30
CHART: Final = 30  # samples
USE, OPEN, IDLE, WAIT, SOFT = "green", "blue", "bright_black", "red", "dim"
GLYPHS: Final = ("█", " ▁▂▃▄▅▆▇█")
ASCII: Final = ("#", " .:-=+*#")


class Screen:
    """What is drawn: the last event, and the samples of all."""

    def __init__(self, first: Json, *, blocks: bool = True) -> None:
        self.lost = ""
        self._full, self._steps = GLYPHS if blocks else ASCII
        self._samples: dict[int, deque[Any]] = {}
        self._sample: int | None = None
        self.note(first)

    def note(self, shown: Json) -> None:
        """Take an event; those with all samples replace what is there."""
        fresh = shown["sample"] != self._sample
        before, self._samples = self._samples, {}
        for pool in shown["pools"]:
            kept = before.get(pool["key"], ())
            more = [pool["last"]] if fresh and pool["last"] else []
            samples = pool.get("samples", [*kept, *more])
            self._samples[pool["key"]] = deque(samples, maxlen=CHART)
        self._shown, self._sample = shown, shown["sample"]

    def draw(self, width: int) -> Group:
        """Return the lines, each cut to the width."""
        lines = [*self._head(), *self._pools(), *self._stalls(), *self._errors()]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width)
        return Group(*lines)

    def _head(self) -> Iterator[Text]:
        process = self._shown["process"]
        facts = "process {pid} on {host}, {backend}, greenpg {version}, Python {python}"
        yield text(("greenpg ", "bold"), (facts.format(**process), SOFT))
        if self.lost:
            yield text((self.lost, WAIT))

    def _pools(self) -> Iterator[Text]:
        for pool in self._shown["pools"]:
            yield Text()
            yield from self._pool(pool)
        if not self._shown["pools"]:
            yield text(("no pools", SOFT))

    def _pool(self, pool: Json) -> Iterator[Text]:
        numbers = "{in_use} in use, {idle} idle, {connecting} connecting, {waiting} waiting"
        yield text((pool["name"], "bold"))
        style = WAIT if pool["waiting"] else SOFT
        facts = f" {numbers.format(**pool)}; at most {pool['max']}"
        yield Text.assemble(*self._bar(pool), text((facts, style)))
        rates, waits = zip(*(self._samples[pool["key"]] or [(0.0, 0.0)]), strict=True)
        yield text((self._chart(rates), USE), (f" {rates[-1]:.1f} loans/s", SOFT))
        yield text((self._chart(waits), WAIT), (f" wait {seconds(waits[-1])}", SOFT))
        for holder in pool["holders"]:
            session = f"  {holder['state']}, {holder['pid']}, {holder['task'] or 'no task'}"
            yield row("held", holder, (session, SOFT))
        for waiter in pool["waiters"]:
            yield row("waits", waiter, (f"  {waiter['count']} tasks", SOFT))

    def _bar(self, pool: Json) -> Iterator[tuple[str, str]]:
        left = BAR
        for name, style in (("in_use", USE), ("connecting", OPEN), ("idle", IDLE)):
            cells = min(ceil(pool[name] * BAR / max(pool["max"], 1)), left)
            left -= cells
            yield self._full * cells, style
        yield " " * left, ""

    def _chart(self, values: Sequence[float]) -> str:
        top, most = max(values) or 1.0, len(self._steps) - 1
        return "".join(self._steps[ceil(value * most / top)] for value in values).rjust(CHART)

    def _stalls(self) -> Iterator[Text]:
        stalls = self._shown["stalls"]
        counted = f"{stalls['count']} in all, {seconds(stalls['seconds'])} together"
        yield Text()
        told = counted if stalls["watched"] else "not watched"
        yield text(("stalls of the event loop: ", "bold"), (told, SOFT))
        for stall in stalls["last"][:3]:
            place = stall["stack"].strip().splitlines()[-1].strip()
            yield text((f"{seconds(stall['seconds']):>9} ", WAIT), (f"{clock(stall)} {place}", ""))

    def _errors(self) -> Iterator[Text]:
        for error in self._shown["errors"][:5]:
            what = f"{error['what']}: {error['error']} {error['sqlstate'] or ''}".rstrip()
            yield text((what, WAIT), (f" at {clock(error)}, {error['count']} times", ""))
            yield text((f"  pool {error['pool']}: {error['text'] or 'no text'}", SOFT))


def row(what: str, borrower: Json, more: tuple[str, str]) -> Text:
    """Return the line of a holder or a waiter."""
    age = f"{what:>6} {seconds(borrower['seconds']):>9}  "
    return text((age, "bold"), (borrower["place"], ""), more)


def text(*parts: tuple[str, str]) -> Text:
    """Return a line; what a program's names may have that moves the cursor is left out."""
    return Text.assemble(*((plain(part), style) for part, style in parts))


def plain(part: str) -> str:
    """Return a text with "?" in place of what is not printable."""
    return "".join(sign if sign.isprintable() else "?" for sign in part)


def seconds(value: float) -> str:
    """Return a duration in its unit."""
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:02.0f} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def clock(event: Json) -> str:
    """Return the local time of an event."""
    return time.strftime("%H:%M:%S", time.localtime(event["at"]))
