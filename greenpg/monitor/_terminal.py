"""The monitor's page for a terminal, drawn by rich."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.text import Text

from greenpg._command import printable

if TYPE_CHECKING:
    from ._snapshot import Json

BAR: Final = 30
CHART: Final = 30  # samples
CHANNELS: Final = 10  # of a listener
KINDS: Final = ("pools", "multiplexers", "listeners")
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
        self._width = 0
        self.note(first)

    def note(self, shown: Json) -> None:
        """Take an event; those with all samples replace what is there."""
        fresh = shown["sample"] != self._sample
        before, self._samples = self._samples, {}
        for one in (one for kind in KINDS for one in shown[kind]):
            kept = before.get(one["key"], ())
            more = [one["last"]] if fresh and one["last"] else []
            samples = one.get("samples", [*kept, *more])
            self._samples[one["key"]] = deque(samples, maxlen=CHART)
        self._shown, self._sample = shown, shown["sample"]

    def draw(self, width: int) -> Group:
        """Return the lines, each cut to the width."""
        self._width = width
        lines = [*self._head(), *self._cards(), *self._stalls(), *self._errors()]
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

    def _cards(self) -> Iterator[Text]:
        if not any(self._shown[kind] for kind in KINDS):
            yield text(("no pools", SOFT))
        for kind, draw in zip(KINDS, (self._pool, self._multiplexer, self._listener), strict=True):
            for one in self._shown[kind]:
                yield Text()
                yield from draw(one)

    def _pool(self, pool: Json) -> Iterator[Text]:
        numbers = "{in_use} in use, {idle} idle, {connecting} connecting, {waiting} waiting"
        yield text((pool["name"], "bold"))
        yield from self._gauge(pool, numbers)
        yield from self._charts(pool, "loans", "wait")
        for holder in pool["holders"]:
            session = f"  {holder['state']}, {holder['pid']}, {holder['task'] or 'no task'}"
            yield row("held", holder, (session, SOFT))
        for waiter in pool["waiters"]:
            yield row("waits", waiter, (f"  {waiter['count']} tasks", SOFT))

    def _multiplexer(self, one: Json) -> Iterator[Text]:
        numbers = "{connections} connections, {in_flight} in flight, {waiting} waiting"
        totals = "{statements} statements, {failed} failed, {slow} slow, {prepared} prepared"
        yield text((one["name"], "bold"), (f" multiplexer: {totals.format(**one)}", SOFT))
        yield from self._gauge(one, numbers)
        yield from self._charts(one, "statements", "latency")
        for line in one["lines"]:
            age = seconds(line["seconds"]) if line["in_flight"] else "idle"
            facts = f"{line['in_flight']} in flight, {line['prepared']} prepared, {line['pid']}  "
            yield text((f"{'line':>6} {age:>9}  ", "bold"), (facts, SOFT), (line["text"] or "", ""))
        for slow in one["slowest"]:
            yield text((f"{'slow':>6} {seconds(slow['seconds']):>9}  ", "bold"), (slow["text"], ""))

    def _listener(self, one: Json) -> Iterator[Text]:
        numbers = "{state}, {subscriptions} subscriptions to {channels} channels"
        totals = "{notifications} notifications, connected {connects} times, {failures} failures"
        style = WAIT if one["state"] == "connecting" else SOFT
        yield text((one["name"], "bold"), (f" listener: {numbers.format(**one)}", style))
        yield text((totals.format(**one), SOFT))
        yield from self._charts(one, "notifications")
        for channel in one["listened"][:CHANNELS]:
            yield text((f"{channel['subscribers']:>6}  ", "bold"), (channel["name"], ""))

    def _charts(self, one: Json, what: str, wait: str = "") -> Iterator[Text]:
        rates, waits = zip(*(self._samples[one["key"]] or [(0.0, 0.0)]), strict=True)
        yield text((self._chart(rates), USE), (f" {rates[-1]:.1f} {what}/s", SOFT))
        if wait:
            yield text((self._chart(waits), WAIT), (f" {wait} {seconds(waits[-1])}", SOFT))

    def _gauge(self, one: Json, numbers: str) -> Iterator[Text]:
        """Yield a bar and its numbers, which are below it where the screen is narrow."""
        bar, style = Text.assemble(*self._bar(one)), WAIT if one["waiting"] else SOFT
        facts = f" {numbers.format(**one)}; at most {one['max']}"
        if BAR + len(facts) <= self._width:
            yield bar + text((facts, style))
        else:
            yield bar
            yield from (text((line, style)) for line in wrap(facts, self._width))

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
            yield text((f"  {error['source']}: {error['text'] or 'no text'}", SOFT))


def row(what: str, borrower: Json, more: tuple[str, str]) -> Text:
    """Return the line of a holder or a waiter."""
    age = f"{what:>6} {seconds(borrower['seconds']):>9}  "
    return text((age, "bold"), (borrower["place"], ""), more)


def text(*parts: tuple[str, str]) -> Text:
    """Return a line; what a program's names may have that moves the cursor is left out."""
    return Text.assemble(*((printable(part), style) for part, style in parts))


def seconds(value: float) -> str:
    """Return a duration in its unit."""
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:02.0f} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def clock(event: Json) -> str:
    """Return the local time of an event."""
    return time.strftime("%H:%M:%S", time.localtime(event["at"]))
