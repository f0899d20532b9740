"""`greenpg bench`: arguments, progress and tables of the benchmarks."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from greenpg._command import CommandError, add_dsn, check_server, console_of
from greenpg.embedded import server_dsn
from greenpg_bench.facts import machine, versions
from greenpg_bench.session import Plan, Result
from greenpg_bench.session import run as run_workload
from greenpg_bench.tables import report
from greenpg_bench.workloads import NAMES, find

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from rich.console import Console


WIDTH: Final = 130
REPORTED: Final = {"date", "machine", "versions", "command", "quick", "workloads"}
NEEDS_MATPLOTLIB: Final = "--plots needs matplotlib; pip install 'greenpg[plots]'"
NOTHING_TO_DO: Final = "--from runs nothing; say where to draw with --plots DIR"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `bench` command."""
    parser = subparsers.add_parser("bench", help="compare greenpg's speed with its peers'")
    add_dsn(parser)
    parser.add_argument(
        "-w", "--workload", action="append", choices=NAMES, help="only this one; may be repeated"
    )
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="only these contenders, such as '*/gevent*'"
    )
    parser.add_argument("--rounds", type=int, help="default: the workload's own number")
    parser.add_argument("--quick", action="store_true", help="run briefly; results vary more")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all samples and verdicts to FILE"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="draw an SVG of each workload in DIR"
    )
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="written",
        help="with --plots: run nothing, draw what --json wrote to FILE",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the workloads that the arguments select, print the results, return the exit code."""
    console = console_of(WIDTH)
    if args.written and not args.plots:
        raise CommandError(NOTHING_TO_DO)
    written = _written(args.written) if args.written else None
    draw = _drawing() if args.plots else None  # before the run, which takes long
    found, failed = (written, False) if written else _measured(console, args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    for path in draw(found, args.plots) if draw else ():
        console.print(f"drawn: {path}", highlight=False, soft_wrap=True)
    return int(args.check and failed)


def _written(file: Path) -> dict[str, Any]:
    """Return what --json wrote to a file."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as err:
        raise CommandError(f"{file}: {err}") from err
    if not (isinstance(found, dict) and found.keys() >= REPORTED):
        raise CommandError(f"{file} was not written by greenpg bench --json")
    return found


def _drawing() -> Callable[[dict[str, Any], Path], Iterable[Path]]:
    try:
        from greenpg_bench.plots import draw  # late: matplotlib is an extra of its own
    except ModuleNotFoundError as err:
        raise CommandError(NEEDS_MATPLOTLIB) from err
    return draw


def _measured(console: Console, args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Run and show the workloads; return what --json writes, and whether one of them failed."""
    with nullcontext(args.dsn) if args.dsn else server_dsn() as dsn:
        check_server(dsn)
        numbers = versions(dsn)
        console.print(", ".join(" ".join(pair) for pair in numbers.items()), style="dim")
        _warn_if_busy(console)
        plan = Plan(dsn, args.rounds, args.quick, args.only)
        results = [_show(console, name, plan) for name in args.workload or NAMES]
    found = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": numbers,
        "command": _command(args),
        "quick": plan.quick,
        "workloads": {result.workload.name: result.as_json() for result in results},
    }
    return found, any(result.failed for result in results)


def _command(args: argparse.Namespace) -> str:
    """Return the command without files and the DSN, which may have a password."""
    words = [word for name in args.workload or () for word in ("--workload", name)]
    words += ["--only", args.only] if args.only != "*" else []
    words += ["--rounds", str(args.rounds)] if args.rounds else []
    words += ["--quick"] if args.quick else []
    return shlex.join(["greenpg", "bench", *words])


def _warn_if_busy(console: Console) -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        console.print(f"busy machine (load {load:.1f} on {cores} cores): results will vary")


def _show(console: Console, name: str, plan: Plan) -> Result:
    with console.status(name) as status:
        result = run_workload(find(name), plan, status.update)
    for part in report(console, result):
        console.print(part, highlight=False)
    for note in result.notes:
        console.print(note, markup=False)
    return result
