"""A helper process that runs one-line JSON orders and ends when its parent does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeAlias

Reply: TypeAlias = dict[str, Any]


class ChildError(RuntimeError):
    """A helper process could not carry out an order, or has ended."""


class Child:
    """`python -m module arguments` in a session of its own, so that Ctrl-C does not reach it.

    The child holds the other end of a pipe: however this process ends, the child reads end of
    file. Only one task at a time may send orders.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        """Start the process, under the command `prefix` if given; wait for its first reply.

        That reply is kept in `greeting`. Raises ChildError if the process reports an error or ends.
        """
        self._name = module
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            start_new_session=True,
        )
        try:
            self.greeting = self._reply()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the helper."""
        return self._process.pid

    def ask(self, order: str, **details: Any) -> Reply:
        """Send an order and return the reply; raise ChildError with the helper's own text."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"order": order, **details}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as err:
            raise ChildError(f"{self._name} has ended; it cannot {order}") from err
        return self._reply()

    def close(self) -> None:
        """Close the helper's pipes and wait for its end; do nothing in a forked child."""
        if self._owner != os.getpid():
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _reply(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self._name} ended without a reply; see its standard error")
        reply: Reply = json.loads(line)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply


def send(reply: Reply) -> None:
    """Print a reply; called in the helper."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def serve(handlers: dict[str, Callable[..., Reply]]) -> None:
    """Carry out the orders on standard input until its end; called in the helper."""
    for line in sys.stdin:
        details = json.loads(line)
        try:
            send(handlers[details.pop("order")](**details))
        except ChildError as err:
            send({"error": str(err)})
