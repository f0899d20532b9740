"""The cookbook's page of news, served by gunicorn and shown by a real browser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2.extensions import make_dsn

from tests import chromium
from tests.frameworks.watch import until

from .pages import DOCS, programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Server

FILES: Final = next(p.files for p in programs(DOCS / "cookbook.md") if p.name == "events")
LISTENING: Final = re.compile(r"Listening at: (http://127\.0\.0\.1:\d+)")
SHOWN: Final = "[...document.querySelectorAll('li')].map(item => item.textContent)"
OPENED: Final = "typeof events != 'undefined' && events.readyState == EventSource.OPEN"
TEXTS: Final = ["It rains.", "<b>bold</b>", "two\nlines"]


@contextmanager
def served(server: Server, folder: Path) -> Iterator[str]:
    """Serve the page by two workers of gunicorn, and yield its address."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    log = folder / "log"
    words = ["-m", "gunicorn", "-k", "gevent", "-w", "2", "-b", "127.0.0.1:0", "news:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words, "--graceful-timeout", "1", "--no-control-socket"],
            cwd=folder,
            env={**os.environ, **server.environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found = until(lambda: LISTENING.search(log.read_text()), "gunicorn listens")
        yield found[1]
    finally:
        process.terminate()
        process.wait(20)


@chromium.needed
def test_browser_shows_notifications_as_text(fresh, tmp_path, browser):
    server = fresh()

    with served(server, tmp_path) as address, closing(browser.open(address)) as page:
        until(lambda: page.evaluate(OPENED), "the stream is open")
        with closing(psycopg2.connect(make_dsn(server.dsn, dbname="app"))) as conn:
            conn.autocommit = True
            for text in TEXTS:
                conn.cursor().execute("select pg_notify('news', %s)", (text,))
        until(lambda: len(page.evaluate(SHOWN)) == len(TEXTS), "the page shows all texts")
        shown = page.evaluate(SHOWN)

    assert shown == TEXTS
