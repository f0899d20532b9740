"""`greenpg top`: how it draws what a monitor shows, and what it accepts as an address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from greenpg.cli import main
from greenpg.monitor._reader import Reader
from greenpg.monitor._terminal import CHANNELS, CHART, Screen

POOL = {
    "key": 1, "name": "web", "max": 4, "in_use": 2, "idle": 1, "connecting": 0, "waiting": 3,
    "oldest_wait": 0.2, "served": 9, "timeouts": 1, "closed": {}, "last": None,
    "samples": [[0.0, 0.0], [4.0, 0.5], [2.0, 0.002]],
    "holders": [
        {"place": "app.py:7 in view", "seconds": 71.5, "state": "idle in transaction", "pid": 42,
         "task": "Greenlet-1", "stack": None},
    ],
    "waiters": [{"place": "app.py:9 in other", "seconds": 0.2, "count": 3}],
}  # fmt: skip
MULTIPLEXER = {
    "key": 2, "name": "many", "max": 4, "in_use": 2, "idle": 1, "connecting": 0, "waiting": 3,
    "connections": 2, "in_flight": 5, "statements": 9, "failed": 1, "slow": 2, "prepared": 4,
    "last": None, "samples": [[0.0, 0.0], [800.0, 0.004]],
    "lines": [{"pid": 42, "in_flight": 5, "seconds": 1.5, "text": None, "prepared": 4},
              {"pid": 43, "in_flight": 0, "seconds": 0.0, "text": None, "prepared": 0}],
    "slowest": [{"text": "select\n?", "seconds": 0.2}],
}  # fmt: skip
LISTENER = {
    "key": 3, "name": "news", "state": "connected", "subscriptions": 30, "channels": 20,
    "notifications": 7, "connects": 2, "failures": 1, "last": None, "samples": [],
    "listened": [{"name": f"\x1b[2J{number}", "subscribers": 2} for number in range(20)],
}  # fmt: skip
PROCESS = {"pid": 7, "host": "h", "backend": "gevent", "version": "1", "python": "3"}
NOW = 1_800_000_000.0
SHOWN: dict[str, Any] = {
    "sample": 5, "process": PROCESS, "pools": [POOL], "multiplexers": [], "listeners": [],
    "stalls": {
        "watched": True, "count": 2, "seconds": 1.5,
        "last": [{"at": NOW, "seconds": 1.2, "stack": '  File "app.py", line 3, in slow\n'}],
    },
    "errors": [
        {"at": NOW, "source": "pool web", "what": "connect", "error": "OperationalError",
         "sqlstate": "57P03", "text": "the server starts", "count": 4},
    ],
}  # fmt: skip


def drawn(screen: Screen, width: int = 100) -> list[str]:
    console = Console(width=300, color_system=None)
    with console.capture() as capture:
        console.print(screen.draw(width))
    return capture.get().splitlines()


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer the first request at the port with these bytes."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_it_shows_what_the_page_does():
    lines = drawn(Screen(SHOWN))

    text = "\n".join(lines)
    assert "process 7 on h, gevent" in lines[0]
    assert "2 in use, 1 idle, 0 connecting, 3 waiting; at most 4" in text
    assert "  held 1 min 12 s  app.py:7 in view  idle in transaction, 42, Greenlet-1" in text
    assert " waits    200 ms  app.py:9 in other  3 tasks" in text
    assert "2 in all, 1.5 s together" in text
    assert 'File "app.py", line 3, in slow' in text
    assert "connect: OperationalError 57P03" in text
    assert "pool web: the server starts" in text


def test_multiplexers_and_listeners_are_shown_in_their_place():
    shown = {**SHOWN, "pools": [], "multiplexers": [MULTIPLEXER], "listeners": [LISTENER]}

    text = "\n".join(drawn(Screen(shown)))

    assert "many multiplexer: 9 statements, 1 failed, 2 slow, 4 prepared" in text
    assert "2 connections, 5 in flight, 3 waiting; at most 4" in text
    assert " 800.0 statements/s" in text
    assert " latency 4 ms" in text
    assert "  line     1.5 s  5 in flight, 4 prepared, 42" in text
    assert "  line      idle  0 in flight, 0 prepared, 43" in text
    assert "  slow    200 ms  select??" in text
    assert "news listener: connected, 30 subscriptions to 20 channels" in text
    assert "7 notifications, connected 2 times, 1 failures" in text
    assert text.count("?[2J") == CHANNELS
    assert "no pools" not in text


def test_bar_and_charts_have_their_scale():
    lines = drawn(Screen(SHOWN, blocks=False))

    bar, rates, waits = (line[:CHART] for line in lines[3:6])
    assert bar.rstrip() == "#" * 23  # 15 in use and 8 idle of 30
    assert rates.strip() == "#="
    assert waits.strip() == "#."
    assert "2.0 loans/s" in lines[4]
    assert "wait 2 ms" in lines[5]


def test_numbers_are_whole_on_a_narrow_screen():
    text = "\n".join(drawn(Screen(SHOWN), 40))

    assert " 2 in use, 1 idle, 0 connecting, 3\nwaiting; at most 4" in text


@pytest.mark.parametrize("width", [30, 80, 140])
def test_lines_fit_the_screen(width):
    shown = {**SHOWN, "multiplexers": [MULTIPLEXER], "listeners": [LISTENER]}

    assert max(map(len, drawn(Screen(shown), width))) <= width


def test_news_add_one_sample_each():
    screen = Screen(SHOWN)
    news = {key: value for key, value in POOL.items() if key != "samples"}

    for number in (5, 6, 6, 7):
        pool = {**news, "last": [float(number), 0.0]}
        screen.note({**SHOWN, "sample": number, "pools": [pool]})

    assert [rate for rate, _ in screen._samples[1]] == [0.0, 4.0, 2.0, 6.0, 7.0]
    screen.note({**SHOWN, "pools": []})
    assert "no pools" in "\n".join(drawn(screen))


def test_a_pool_without_samples_is_drawn():
    assert "0.0 loans/s" in "\n".join(drawn(Screen({**SHOWN, "pools": [{**POOL, "samples": []}]})))


def test_names_cannot_move_the_cursor():
    pool = {**POOL, "name": "\x1b[2Jweb\r\n[bold]"}

    assert "?[2Jweb??[bold]" in drawn(Screen({**SHOWN, "pools": [pool]}))


def test_a_lost_stream_is_told():
    screen = Screen(SHOWN)
    screen.lost = "nothing heard"

    assert drawn(screen)[1] == "nothing heard"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/", "http://", "http://h:x/"])
def test_what_is_no_address_is_refused(url, capsys):
    assert main(["top", f"{url}?token=hunter2"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("greenpg top: ")
    assert "hunter2" not in said


def test_a_token_is_no_part_of_the_request_line():
    reader = Reader("h:8010/ops/?token=a+b", "other")

    assert reader._place == ("h", 8010)
    assert reader._path == "/ops"
    assert reader._headers == {"Authorization": "Bearer a b"}


def test_a_monitor_that_is_not_there_is_an_error(capsys):
    assert main(["top", "127.0.0.1:1"]) == 1

    assert "cannot read 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"<html>", b"[" * 200_000])
def test_an_answer_of_something_else_is_an_error(answer, capsys):
    with answering(b"HTTP/1.0 200 OK\r\n\r\n" + answer) as port:
        assert main(["top", f"http://127.0.0.1:{port}/"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("greenpg top: cannot read 127.0.0.1: ")
    assert said.count("\n") == 1


def test_a_reason_cannot_move_the_cursor(capsys):
    with answering(b"HTTP/1.0 500 a\x1b]0;b\x07\r\n\r\n") as port:
        assert main(["top", f"http://127.0.0.1:{port}/"]) == 1

    assert capsys.readouterr().err == "greenpg top: 127.0.0.1 answers 500 a?]0;b?\n"
