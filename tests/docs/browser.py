"""A headless Chromium for one test, driven over its debugging pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
OPTIONS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")


class Page:
    """A page of the browser; each call is one message of the DevTools protocol."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests = os.fdopen(requests, "wb", buffering=0)
        self._replies = os.fdopen(replies, "rb")
        self._session: dict[str, str] = {}
        self._number = 0
        target = self._call("Target.createTarget", url="about:blank")
        attached = self._call("Target.attachToTarget", **target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, of a promise once it is settled."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        """Let the browser end."""
        with suppress(OSError):
            self._requests.close()
        self._replies.close()

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        self._requests.write(json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self._number:
            pass
        assert "error" not in reply, reply
        return reply["result"]

    def _next(self) -> dict[str, Any]:
        text = b"".join(iter(lambda: self._replies.read(1), b"\0"))
        found: dict[str, Any] = json.loads(text)
        return found


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Run Chromium with an empty profile, and yield a page."""
    assert CHROMIUM is not None
    requests, to_browser = os.pipe()
    from_browser, replies = os.pipe()
    words = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"]
    # Chromium reads from descriptor 3 and writes to 4.
    script = f'exec 3<&{requests} 4>&{replies}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *words],
        pass_fds=(requests, replies),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(requests)
    os.close(replies)
    try:
        page = Page(to_browser, from_browser)
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(10)
