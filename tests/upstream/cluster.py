"""Keeps a private PostgreSQL cluster for as long as standard input stays open, then removes it.

Arguments: the directory of PostgreSQL's programs, and the port. Says `ready` once it serves.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_prepared_transactions": "50",
    "max_connections": "300",
    "fsync": "off",
}
_INITDB = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster in `home`; PostgreSQL refuses root, so its own user runs it then."""

    programs: Path
    home: Path
    port: str

    def start(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.home, *_postgres_ids())
        settings = _SETTINGS | {"port": self.port, "unix_socket_directories": str(self.home)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("initdb", *_INITDB)
        self._run("pg_ctl", "start", "-w", f"--log={self.home}/log", f"--options={options}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.home / "data"), *arguments]
        user, group = _postgres_ids() if os.geteuid() == 0 else (None, None)
        done = subprocess.run(
            command, check=False, capture_output=True, cwd=self.home, user=user, group=group
        )
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr).decode(errors="replace"))


def _postgres_ids() -> tuple[int, int]:
    entry = pwd.getpwnam("postgres")
    return entry.pw_uid, entry.pw_gid


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of our input ends us
    home = Path(tempfile.mkdtemp(prefix="greenpg-upstream-"))
    cluster = Cluster(Path(sys.argv[1]), home, sys.argv[2])
    try:
        cluster.start()
        print("ready", flush=True)
        sys.stdin.read()
        cluster.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


main()
