"""`greenpg top`: how it draws what a monitor shows, and what it accepts as an address."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from greenpg.cli import main
from greenpg.monitor._reader import Reader
from greenpg.monitor._terminal import CHART, Screen

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


def test_bar_and_charts_have_their_scale():
    lines = drawn(Screen(SHOWN, blocks=False))

    bar, rates, waits = (line[:CHART] for line in lines[3:6])
    assert bar.rstrip() == "#" * 23  # 15 in use and 8 idle of 30
    assert rates.strip() == "#="
    assert waits.strip() == "#."
    assert "2.0 loans/s" in lines[4]
    assert "wait 2 ms" in lines[5]


@pytest.mark.parametrize("width", [30, 80, 140])
def test_lines_fit_the_screen(width):
    assert max(map(len, drawn(Screen(SHOWN), width))) <= width


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
