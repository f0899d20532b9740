"""A process that sends notifications, one statement each."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg2


class Publisher:
    """Sends while its owner goes on; ends when that ends."""

    def __init__(self, dsn: str, channel: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, channel],
            stdin=subprocess.PIPE,
            env={**os.environ, "GREENPG_DSN": dsn},  # others can see arguments
            text=True,
        )

    def send(self, times: int) -> None:
        """Begin to send so many, and do not wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()


def main(channel: str) -> None:
    """Send as many as each line of standard input says."""
    conn = psycopg2.connect(os.environ["GREENPG_DSN"])
    conn.autocommit = True
    cur = conn.cursor()
    for line in sys.stdin:
        for number in range(int(line)):
            cur.execute("select pg_notify(%s, %s)", (channel, str(number)))


if __name__ == "__main__":
    main(*sys.argv[1:])
