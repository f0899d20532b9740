"""The parent's side: what to look at, each part in a child process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Final
from warnings import catch_warnings, simplefilter

from greenpg._command import dsn_fault
from greenpg.backend import load
from greenpg.errors import BackendError
from greenpg_conformance.harness.child import child_process, unchosen
from greenpg_conformance.harness.describe import find, installed

from ._libraries import libraries
from .rows import Row, Secrets, unquoted

__all__ = ["LIMIT", "examine"]

LIMIT: Final = 30.0
NO_SERVER: Final = "give a connection string, or pip install 'greenpg[server]' for a server"
GRACE: Final = 10.0  # beyond the limit at which the child ends itself
PROGRAM: Final = "from greenpg.doctor._worker import main; main()"
STACK: Final = re.compile(r'^Thread .*\n +File "(.*?)", line (\d+)', re.M)  # faulthandler's


def examine(
    dsn: str | None = None,
    *,
    backends: Sequence[str] = (),
    app: str | None = None,
    limit: float = LIMIT,
) -> Iterator[Row]:
    """Yield what there is to say about this environment, and about a server if `dsn` names one.

    Each backend, by default every green one that is installed, is tried in a process that its
    library has monkey-patched. With `app`, a module's name, the program that the module sets up
    is looked at instead; a backend's library patches its process first, as a server's worker
    does. No part takes longer than `limit` seconds.
    """
    hide = Secrets(dsn).hide
    yield from map(hide, libraries())
    reachable = False
    if dsn is not None and (fault := dsn_fault(dsn)):
        yield Row("server", "PostgreSQL", "bad", fault, "mend the connection string")
        dsn = None
    elif dsn is None:
        yield Row("server", "PostgreSQL", "note", "not looked at", NO_SERVER)
    else:
        rows = list(map(hide, _part("server", limit, dsn=dsn, environ=unchosen())))
        reachable = bool(rows) and rows[0].state != "bad"
        yield from rows
    about: dict[str, Any] = {"dsn": dsn, "reachable": reachable}
    if app is not None:
        yield from map(hide, _program(app, backends[:1], limit, about))
        return
    for which in backends or _installed():
        yield from map(hide, _backend(which, limit, about))


def _installed() -> Iterator[str]:
    for name in installed():
        with suppress(BackendError), catch_warnings():
            simplefilter("ignore")  # what a library says of itself when it is imported
            if "hub" in load(name).capabilities:
                yield name


def _program(
    app: str, backends: Sequence[str], limit: float, about: Mapping[str, Any]
) -> Iterator[Row]:
    try:
        prelude = "".join(map(_prelude, backends))
    except BackendError as err:
        yield _missing("program", err)
        return
    yield from _part("program", limit, prelude, app=app, **about)


def _missing(section: str, err: BackendError) -> Row:
    return Row(section, "backend", "bad", str(err), "install it, or ask for another --backend")


def _backend(which: str, limit: float, about: Mapping[str, Any]) -> Iterator[Row]:
    try:
        prelude = _prelude(which)
    except BackendError as err:
        yield _missing(which, err)
        return
    yield from _part(which, limit, prelude, backend=which, environ=unchosen(), **about)


def _prelude(which: str) -> str:
    """Return the lines that monkey-patch a process for a backend's library, if there are such."""
    with catch_warnings():
        simplefilter("ignore")
        return next((mode.prelude for mode in find(which)[1].modes if mode.prelude), "")


def _part(
    section: str,
    limit: float,
    prelude: str = "",
    environ: Mapping[str, str] | None = None,
    **orders: Any,
) -> Iterator[Row]:
    """Yield what a child finds; if it does not reach its end, a last row says where it was."""
    order = json.dumps({"section": section, "limit": limit, **orders}).encode() + b"\n"
    with tempfile.TemporaryFile() as found, tempfile.TemporaryFile() as said:
        child = child_process(PROGRAM, found.fileno(), said, prelude=prelude, environ=environ)
        with child as process, suppress(subprocess.TimeoutExpired):
            process.communicate(order, timeout=limit + GRACE)
        found.seek(0)
        yield from (Row(**json.loads(line)) for line in found)
        if process.returncode:
            yield _broken_off(section, limit, said)


def _broken_off(section: str, limit: float, said: IO[bytes]) -> Row:
    said.seek(0)
    text = said.read().decode(errors="replace").strip()
    stacks = STACK.findall(text)
    if stacks:
        file, line = stacks[-1]  # the main thread's
        fact = f"not over in {limit:g} s; it is in {file}, line {line}"
        return Row(section, "end", "bad", fact, "see what waits there; --limit gives it longer")
    last = text.rpartition("\n")[2]
    fact = f"the process ended: {unquoted(last) or 'without a word'}"
    return Row(section, "end", "bad", fact, "see whether the library can be imported at all")
