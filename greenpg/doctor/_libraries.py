"""Rows about the installed libraries."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import Final

import psycopg2

import greenpg
from greenpg._protocol.libpq import libpq
from greenpg.backend import GROUP
from greenpg.errors import FeatureUnavailable

from .rows import Row

SECTION: Final = "environment"
TWINS: Final = ("psycopg2", "psycopg2-binary")  # both install the package psycopg2
NEWER: Final = {
    "pipelines (libpq 14)": "PQpipelineSync",
    "green cancel (libpq 17)": "PQcancelStart",
}


def libraries() -> Iterator[Row]:
    """Yield a row for each relevant library, and for libpq and its features."""
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Row(SECTION, "Python", "fact", python)
    yield Row(SECTION, "greenpg", "fact", greenpg.version)
    yield _psycopg2()
    yield _libpq()
    yield _green_libraries()
    if version := _version("psycopg"):
        yield _psycopg3(version)
    if version := _version("psycogreen"):
        fact = f"{version} is installed; its patch_psycopg would replace greenpg's"
        remedy = "pip uninstall psycogreen once nothing imports it"
        yield Row(SECTION, "psycogreen", "note", fact, remedy)


def _psycopg2() -> Row:
    found = [name for name in TWINS if _version(name)]
    version = greenpg.__version__.partition(" ")[0]
    fact = f"{version}, from {' and '.join(found) or 'no distribution'}"
    if len(found) < len(TWINS):
        return Row(SECTION, "psycopg2", "good", fact)
    remedy = f"pip uninstall {' '.join(TWINS)}, then install one of them"
    return Row(SECTION, "psycopg2", "bad", f"{fact}: each overwrites the other's files", remedy)


def _libpq() -> Row:
    number = psycopg2.__libpq_version__
    version = f"{number // 10000}.{number % 10000}"
    try:
        libpq.need("PQstatus")
    except FeatureUnavailable as err:
        fact = f"{version}, not reachable, so no COPY, large objects or pipelines: {err}"
        return Row(SECTION, "libpq", "bad", fact, "pip install psycopg2-binary")
    there = [name for name, function in NEWER.items() if libpq.has(function)]
    lacking = [name for name in NEWER if name not in there]
    fact = f"{version}, with {' and '.join(there) or 'no newer features'}"
    if not lacking:
        return Row(SECTION, "libpq", "good", fact)
    remedy = "psycopg2-binary contains a newer libpq"
    return Row(SECTION, "libpq", "note", f"{fact}; without {' and '.join(lacking)}", remedy)


def _green_libraries() -> Row:
    points = metadata.entry_points(group=GROUP)
    names = sorted({point.name for point in points} - {"threads"})
    found = [f"{name} {version}" for name in (*names, "greenlet") if (version := _version(name))]
    if any(_version(name) for name in names):
        return Row(SECTION, "green libraries", "good", ", ".join(found))
    remedy = " or ".join(f"pip install 'greenpg[{name}]'" for name in names)
    return Row(SECTION, "green libraries", "bad", "none is installed", remedy)


def _psycopg3(version: str) -> Row:
    try:
        import_module("greenpg.psycopg3")
    except ImportError as err:  # too old, or without libpq
        fact = f"{version}, not usable: {' '.join(str(err).split())}"
        remedy = "pip install 'greenpg[psycopg3]' 'psycopg[binary]'"
        return Row(SECTION, "psycopg 3", "note", fact, remedy)
    pq = import_module("psycopg.pq")
    fact = f"{version}, {pq.__impl__}, with libpq {pq.version_pretty(pq.version())}"
    return Row(SECTION, "psycopg 3", "good", fact)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
