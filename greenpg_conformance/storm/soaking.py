"""What the soaks share: their command line, and a child process for each backend."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from random import SystemRandom
from typing import Any


def arguments(parser: Any, rounds: int) -> Any:
    """Parse the command line, with the options of every soak."""
    parser.add_argument("--backend", action="append", help="a name, or name/mode; repeatable")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    args = parser.parse_args()
    args.seed = SystemRandom().randrange(1 << 30) if args.seed is None else args.seed
    return args


def in_child(
    column: Any, mode: Any, dsn: str, rounds: int, seed: int, module: str, call: str
) -> int:
    """Run `soak` of a module in a task of the backend; return the exit code.

    The call may name `dsn`, which the child finds in its environment: others can see arguments.
    """
    tell(f"{column}: {rounds} rounds from seed {seed}")
    began = time.monotonic()
    program = f"from greenpg_conformance.harness.describe import find; from {module} import soak"
    given = 'import os; dsn = os.environ["GREENPG_DSN"]'
    run = f"find({column.backend!r})[1].run(lambda: {call})"
    command = [sys.executable, "-c", f"{mode.prelude}\n{program}\n{given}\n{run}"]
    environ = {**os.environ, **mode.environ, "GREENPG_DSN": dsn}
    code = subprocess.run(command, env=environ, check=False).returncode
    tell(f"{column}: {'FAILED' if code else 'passed'} in {time.monotonic() - began:.0f} s")
    return code


def tell(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
