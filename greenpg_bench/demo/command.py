"""`greenpg demo`: many tasks on few connections of a real PostgreSQL, drawn while they run."""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from psycopg2.extensions import parse_dsn
from rich.console import Console, RenderableType
from rich.live import Live

from greenpg._command import CommandError, add_dsn, dsn_fault
from greenpg.backend import GROUP
from greenpg.embedded import server_dsn
from greenpg_bench.demo.facts import facts
from greenpg_bench.demo.job import DRIVERS, KILLED, OF_PSYCOGREEN, Job
from greenpg_bench.demo.kills import after_kills
from greenpg_bench.demo.overview import ASCII as PLAIN
from greenpg_bench.demo.overview import BLOCKS as HALVES
from greenpg_bench.demo.overview import overview
from greenpg_bench.demo.picture import ASCII, BLOCKS, Picture, seconds, title
from greenpg_bench.demo.process import Event, events
from greenpg_bench.demo.record import Record

_T = TypeVar("_T")
ALL: Final = "all"
FRAMES_PER_SECOND: Final = 15
SECONDS_PER_LINE: Final = 0.4
SVG_WIDTH: Final = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `demo` command."""
    parser = subparsers.add_parser(
        "demo",
        help="watch 200 tasks share 10 connections",
        description="Many tasks run one slow query each over a few shared connections while a "
        "ticker keeps ticking: on greenpg, on psycogreen and on stock psycopg2. Then tasks are "
        "killed in the midst of their queries.",
    )
    parser.add_argument(
        "--backend",
        default=ALL,
        metavar="|".join((*_known(), ALL)),
        help="default all: every installed one of these",
    )
    add_dsn(parser)
    parser.add_argument("--tasks", type=_positive, default=200, help="default 200")
    parser.add_argument("--connections", type=_positive, default=10, help="default 10")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also save the pictures to FILE")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _known() -> list[str]:
    return sorted(point.name for point in metadata.entry_points(group=GROUP))


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0, or 1 if a run failed."""
    console = Console()
    with _terminable(), _server(console, args.dsn) as dsn:
        records = list(_runs(console, args, dsn))
        console.print(overview(records, console.width, _glyphs(console, HALVES, PLAIN)))
        console.print(facts(records))
        killed = list(_kills(args, dsn))
    console.print(after_kills(killed))
    if args.svg:
        _save(records, killed, args.svg)
    return int(any(record.error for record in [*records, *killed]))


def _runs(console: Console, args: argparse.Namespace, dsn: str) -> Iterator[Record]:
    for backend in _backends(args):
        for driver in DRIVERS:
            job = Job(backend, driver, dsn, args.tasks, args.connections)
            if not job.exists:
                continue
            record = Record(job)
            _watch(console, record)
            if record.missing and (driver == "psycogreen" or args.backend == ALL):
                yield record
                if driver == "psycogreen":
                    continue
                break
            if record.start is None:
                raise CommandError(record.missing or record.error)
            yield record


def _backends(args: argparse.Namespace) -> list[str]:
    return _known() if args.backend == ALL else [args.backend]


def _kills(args: argparse.Namespace, dsn: str) -> Iterator[Record]:
    """Yield the runs of the second act: kills exist under green backends only."""
    for backend in _backends(args):
        for driver in DRIVERS[:2]:
            job = Job(backend, driver, dsn, KILLED, args.connections, kills=True)
            if backend in OF_PSYCOGREEN:
                record = Record(job)
                _watch_kills(record)
                yield record


def _watch_kills(record: Record) -> None:
    with events(record.job) as found:
        for event in found:
            record.note(event)
    record.error = _without_password(record.error, record.job.dsn)


def _glyphs(console: Console, blocks: _T, plain: _T) -> _T:
    return blocks if console.encoding.startswith("utf") else plain


def _watch(console: Console, record: Record) -> None:
    show = _draw if console.is_terminal and not console.is_dumb_terminal else _report
    with events(record.job) as found:
        show(console, record, found)
    record.error = _without_password(record.error, record.job.dsn)


def _draw(console: Console, record: Record, found: Iterator[Event]) -> None:
    glyphs = _glyphs(console, BLOCKS, ASCII)

    def frame() -> RenderableType:
        since = 0.0 if record.start is None else time.monotonic() - record.start
        return Picture(record, console.width, console.height, glyphs).draw(since)

    with Live(console=console, get_renderable=frame, refresh_per_second=FRAMES_PER_SECOND):
        for event in found:
            record.note(event)


def _report(console: Console, record: Record, found: Iterator[Event]) -> None:
    console.print(title(record))
    last = 0.0
    for event in found:
        record.note(event)
        now = event["at"] - (record.start or event["at"])
        if now >= last + SECONDS_PER_LINE:
            last = now
            console.print(_line(record, now))


def _line(record: Record, now: float) -> str:
    stall = max(record.longest_stall, record.stall(now))
    return f"  {now:4.1f} s  {record.done}/{record.job.tasks} queries  stall {seconds(stall)}"


@contextmanager
def _server(console: Console, given: str | None) -> Iterator[str]:
    asked = given or os.environ.get("GREENPG_DSN")
    if asked:
        if fault := dsn_fault(asked):  # of the environment
            raise CommandError(f"GREENPG_DSN: {fault}")
        yield asked
        return
    with console.status("starting an embedded PostgreSQL") as status, server_dsn() as dsn:
        status.stop()
        yield dsn


def _without_password(text: str, dsn: str) -> str:
    secret = parse_dsn(dsn).get("password")
    return text.replace(secret, "***") if secret else text


def _save(records: list[Record], killed: list[Record], file: Path) -> None:
    """Write the runs and the facts as an SVG that loads no other files."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=SVG_WIDTH, file=nowhere, force_terminal=True)
        console.print(overview(records, SVG_WIDTH), facts(records), after_kills(killed))
        svg = console.export_svg(title="greenpg demo")
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit in the block, so that the cursor is restored."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
