"""The monitor as a WSGI application (PEP 3333)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, quote

from greenpg._checks import check_texts
from greenpg.backend import as_backend

from ._backend import fitting_backend
from ._feed import Feed

if TYPE_CHECKING:
    from greenpg.backend import Backend

Environ: TypeAlias = dict[str, Any]
Headers: TypeAlias = list[tuple[str, str]]
StartResponse: TypeAlias = Callable[[str, Headers], object]

TEXT: Final = "text/plain; charset=utf-8"
PAGE: Final = ("page.html", "text/html; charset=utf-8")
FILES: Final = {
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
SAFE: Final = [
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),  # the address may have the token
    ("X-Content-Type-Options", "nosniff"),
]


class Monitor:
    """A WSGI application that shows the pools of its process; mount it wherever you like.

    It samples from its first request on, or from `start()`. With a `token`, a request needs
    `?token=...` or `Authorization: Bearer ...`. `details` adds the texts of errors and the source
    in stacks, which may have queries and values.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        details: bool = False,
        backend: str | Backend | None = None,
    ) -> None:
        check_texts(token=token)
        if token == "":
            raise ValueError("the token is empty; give None for a page without one")
        chosen = None if backend is None else as_backend(backend)
        self._token = token
        self._feed = Feed(fitting_backend if chosen is None else lambda: chosen, details)

    def start(self) -> None:
        """Sample from now on, so that the page has charts when it is opened."""
        self._feed.start()

    def close(self) -> None:
        """End the task that samples, and all streams of events."""
        self._feed.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request for the page, its files, `data` (JSON) or `events`."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text(start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
        path = environ.get("PATH_INFO", "")
        if path in FILES:
            return _file(start_response, *FILES[path])
        if path not in ("", "/", "/data", "/events"):
            return _text(start_response, "404 Not Found")
        if not self._may(environ):
            challenge = [("WWW-Authenticate", "Bearer")]
            return _text(start_response, "401 Unauthorized", challenge, "append ?token=...\n")
        if path == "":
            return _slash(environ, start_response)
        if path == "/":
            return _file(start_response, *PAGE)
        if path == "/data":
            shown = self._feed.frame().with_samples()
            return _answer(start_response, "application/json", json.dumps(shown).encode())
        return self._events(environ, start_response)

    def _events(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        unbuffered = [("X-Accel-Buffering", "no")]  # nginx would hold the events back
        start_response("200 OK", [("Content-Type", "text/event-stream"), *SAFE, *unbuffered])
        return () if environ["REQUEST_METHOD"] == "HEAD" else self._feed.events()

    def _may(self, environ: Environ) -> bool:
        if self._token is None:
            return True
        kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else _asked(environ)
        return hmac.compare_digest(given.encode(), self._token.encode())


def _asked(environ: Environ) -> str:
    return str(parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0])


def _slash(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Redirect to the same address with a slash, to which the page's links are relative."""
    here = quote(environ.get("SCRIPT_NAME", "").rpartition("/")[2].encode("latin-1")) + "/"
    query = environ.get("QUERY_STRING", "")
    place = f"{here}?{query}" if query else here
    return _text(start_response, "308 Permanent Redirect", [("Location", place)])


def _file(start_response: StartResponse, name: str, kind: str) -> Iterable[bytes]:
    file = resources.files(__package__) / "static" / name
    return _answer(start_response, kind, file.read_bytes())


def _text(
    start_response: StartResponse, status: str, headers: Headers | None = None, text: str = ""
) -> Iterable[bytes]:
    return _answer(start_response, TEXT, (text or f"{status}\n").encode(), status, headers or [])


def _answer(
    start_response: StartResponse,
    kind: str,
    body: bytes,
    status: str = "200 OK",
    headers: Headers | None = None,
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", kind), length, *SAFE, *(headers or [])])
    return [body]
