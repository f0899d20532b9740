"""`greenpg bench`: arguments, progress and tables of the benchmarks."""

from __future__ import annotations

import json
import os
import platform
from contextlib import nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from greenpg._command import add_dsn, console_of
from greenpg.embedded import server_dsn
from greenpg_bench.session import Plan, Result
from greenpg_bench.session import run as run_workload
from greenpg_bench.tables import report
from greenpg_bench.workloads import NAMES, find

if TYPE_CHECKING:
    import argparse

    from rich.console import Console


WIDTH = 130
DISTRIBUTIONS = (
    "greenpg", "psycopg2-binary", "psycopg2", "psycogreen", "gevent", "eventlet",
    "psycopg", "asyncpg", "uvloop",
)  # fmt: skip


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
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the workloads that the arguments select, print the results, return the exit code."""
    console = console_of(WIDTH)
    with nullcontext(args.dsn) if args.dsn else server_dsn() as dsn:
        console.print(", ".join(" ".join(pair) for pair in _versions().items()), style="dim")
        _warn_if_busy(console)
        plan = Plan(dsn, args.rounds, args.quick, args.only)
        results = [_show(console, name, plan) for name in args.workload or NAMES]
    if args.json:
        args.json.write_text(json.dumps(_report(results, plan), indent=1) + "\n")
    return int(args.check and any(result.failed for result in results))


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


def _report(results: list[Result], plan: Plan) -> dict[str, object]:
    return {
        "machine": platform.platform(),
        "versions": _versions(),
        "quick": plan.quick,
        "workloads": {result.workload.name: result.as_json() for result in results},
    }


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
