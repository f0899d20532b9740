"""A headless Chromium for tests, driven over a pipe by its DevTools protocol."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import time
from collections import defaultdict
from contextlib import suppress
from select import select
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PATH: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needed: Final = pytest.mark.skipif(
    PATH is None and "GREENPG_REQUIRES_CHROMIUM" not in os.environ,
    reason="capability missing: chromium is not installed",
)
PATIENCE: Final = 20.0  # seconds
OPTIONS: Final = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
READS, WRITES = 3, 4  # its ends of the pipes


class Browser:
    """One process of Chromium, with a profile in `folder`."""

    def __init__(self, folder: Path) -> None:
        assert PATH is not None
        theirs, self._out = os.pipe()
        self._in, others = os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, WRITES + 1) for fd in (theirs, others)]
        log = folder / "log"
        actions = [
            (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT, 0o600),
            *((os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip(ends, (READS, WRITES), strict=True)),
        ]
        words = [PATH, *OPTIONS, f"--user-data-dir={folder}"]
        self._pid = os.posix_spawn(PATH, words, os.environ, file_actions=actions, setpgroup=0)
        for fd in (theirs, others, *ends):
            os.close(fd)
        self._data = b""
        self._numbers = itertools.count(1)
        self.events: dict[str, list[Any]] = defaultdict(list)  # of each page, by its session

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (reply := self.next()).get("id") != number:
            pass
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    def next(self) -> Any:
        """Return the next message; an event is kept too."""
        while b"\0" not in self._data:
            ready, _, _ = select([self._in], [], [], PATIENCE)
            assert ready, f"Chromium says nothing for {PATIENCE:g} s"
            data = os.read(self._in, 1 << 20)
            assert data, "Chromium has ended"
            self._data += data
        message, _, self._data = self._data.partition(b"\0")
        found = json.loads(message)
        if "id" not in found:
            self.events[found.get("sessionId", "")].append(found)
        return found

    def open(
        self, address: str, width: int = 1000, scheme: str = "light", script: str = ""
    ) -> Page:
        """Open a page in a window; `script` runs before its own."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        loaded = len(page.seen("Page.loadEventFired"))
        page.call("Page.navigate", url=address)
        while len(page.seen("Page.loadEventFired")) == loaded:
            self.next()
        return page

    def close(self) -> None:
        """End the process, whatever it does."""
        for fd in (self._in, self._out):  # it ends at their end of file
            os.close(fd)
        end = time.monotonic() + PATIENCE
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


class Page:
    """A page in a window of its own."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression, or of its promise."""
        options = {"awaitPromise": True, "returnByValue": True}
        found = self.call("Runtime.evaluate", expression=code, **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str) -> Any:
        """Return the first true value of an expression; it is looked at when the page changes."""
        self.watch(condition)
        return self.watched()

    def watch(self, condition: str) -> None:
        """Begin to look for the first true value of an expression, which `watched` returns."""
        self.evaluate(f"""void (window.watched = new Promise((resolve, reject) => {{
            const look = () => {{ const found = {condition}; if (found) resolve(found); }};
            const all = {{ subtree: true, childList: true, characterData: true, attributes: true }};
            new MutationObserver(look).observe(document, all);
            setTimeout(() => reject(new Error(document.body.innerText)), {PATIENCE * 900});
            look();
        }}))""")

    def watched(self) -> Any:
        """Wait for the value that `watch` looks for, and return it."""
        return self.evaluate("window.watched")

    def seen(self, method: str) -> list[Any]:
        """Return the parameters of the events of a kind."""
        events = self._browser.events[self._session]
        return [event["params"] for event in events if event["method"] == method]

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)
