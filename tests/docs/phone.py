"""Measures the pages of a built site in Chromium, each in a frame as narrow as a phone's screen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTH: Final = 360
SECONDS: Final = 60.0
HARNESS: Final = """<!doctype html><body><script>
const pages = %s, width = %d;

function scrolls(node) {  // by itself, not with all of the page
  for (let one = node.parentElement; !one.matches("article, footer"); one = one.parentElement)
    if (/auto|scroll/.test(getComputedStyle(one).overflowX)) return true;
  return false;
}

function isCut(node) {
  const box = node.getBoundingClientRect();
  return box.width > 1 && (box.right > width + 1 || box.left < -1) && !scrolls(node);
}

async function measured(page) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 800px`;
  frame.src = page;
  await new Promise(done => { frame.onload = done; document.body.append(frame); });
  const root = frame.contentDocument.documentElement;
  const cut = [...root.querySelectorAll("article *, footer *")].filter(isCut);
  const content = root.querySelector(".content");
  const found = {
    seen: root.clientWidth,
    taken: Math.max(root.scrollWidth, content.scrollWidth),
    cut: cut.map(node => node.outerHTML),
  };
  frame.remove();
  return found;
}

(async () => {
  const found = {};
  for (const page of pages)
    found[page] = await measured(page).catch(error => ({error: String(error)}));
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


def measure(site: Path, pages: Sequence[str]) -> dict[str, Any]:
    """Return for each page the width it sees, the width it takes, and what is cut of it."""
    (site / "harness.html").write_text(HARNESS % (json.dumps(pages), WIDTH))
    found: SimpleQueue[dict[str, Any]] = SimpleQueue()
    with _served(site, found) as address, _chromium(f"{address}/harness.html", site / "profile"):
        return found.get(timeout=SECONDS)


class _Handler(SimpleHTTPRequestHandler):
    """Serves the site, and takes what the harness has found."""

    def __init__(self, found: SimpleQueue[Any], *args: Any, **options: Any) -> None:
        self._found = found
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self._found.put(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(site: Path, found: SimpleQueue[Any]) -> Iterator[str]:
    handler = partial(_Handler, found, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _chromium(address: str, profile: Path) -> Iterator[None]:
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    process = subprocess.Popen(
        [CHROMIUM, *options, f"--user-data-dir={profile}", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
