"""Draws what `greenpg bench` measured: an SVG for each workload, from the samples in its JSON.

The same samples give the same files, with one release of matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from greenpg_bench.workloads import find

from . import bars, curves

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["draw"]


def draw(report: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Write run.md and, for each workload that has samples, NAME.svg; yield the files."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = folder / "run.md"
    facts.write_text(_facts(report))
    yield facts
    for name, result in report["workloads"].items():
        samples = {one: found["samples"] for one, found in result["contenders"].items()}
        workload = find(name)
        kind = curves if workload.axis else bars
        if picture := kind.picture(workload, samples):
            path = folder / f"{name}.svg"
            path.write_text(picture)
            yield path


def _facts(report: dict[str, Any]) -> str:
    """Return a table in Markdown that says what run it was."""
    versions = ", ".join(" ".join(pair) for pair in report["versions"].items())
    few = ", with few rounds: results vary more" if report["quick"] else ""
    command = f"`{report['command']}`{few}"
    facts = {"Date": report["date"], "Machine": report["machine"], "Versions": versions}
    rows = [f"| {name} | {fact} |" for name, fact in {**facts, "Command": command}.items()]
    return "\n".join(["| Run | |", "|---|---|", *rows, ""])
