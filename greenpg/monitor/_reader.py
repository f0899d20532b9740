"""Reads a monitor of another process: its data, and its events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from ._snapshot import Json

SILENCE: Final = 5.0  # seconds
SCHEMES: Final = {"http": HTTPConnection, "https": HTTPSConnection}
DATA: Final = b"data: "
SHOWN: Final = {"sample", "process", "pools", "multiplexers", "listeners", "errors", "stalls"}


class Lost(Exception):
    """The monitor is not reached, or answers nothing of use; the text is the reason."""


class Reader:
    """Reads the monitor at an address, with the token of that or another one; uses no proxy."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise ValueError(f"{url.partition('?')[0]!r} is no address such as http://host:port/")
        self._connection = SCHEMES[parts.scheme]
        self._place = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        token = parse_qs(parts.query).get("token", [token])[0]
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def data(self) -> Json:
        """Return what is shown now, with the samples of the past."""
        with self._answer("data") as answer:
            return _shown(answer.read())

    def events(self) -> Iterator[Json]:
        """Yield what is shown at each tick, until the stream ends or is silent for too long."""
        with self._answer("events") as answer:
            for line in answer:
                if line.startswith(DATA):
                    yield _shown(line.removeprefix(DATA))
        raise Lost("the stream has ended")

    @contextmanager
    def _answer(self, name: str) -> Iterator[HTTPResponse]:
        host, port = self._place
        connection: Any = self._connection(host, port, timeout=SILENCE)
        try:
            connection.request("GET", f"{self._path}/{name}", headers=self._headers)
            answer = connection.getresponse()
            if answer.status == 401:
                raise Lost(
                    f"{host} refuses the token" if self._headers else f"{host} needs a token"
                )
            if answer.status != 200:
                raise Lost(f"{host} answers {answer.status} {answer.reason}")
            yield answer
        except TimeoutError:
            raise Lost(f"nothing heard for {SILENCE:g} s: the event loop may be held up") from None
        except (OSError, HTTPException, ValueError) as error:
            raise Lost(f"cannot read {host}: {error}") from error
        finally:
            connection.close()


def _shown(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except RecursionError:  # lists in lists
        found = None
    if not isinstance(found, dict) or not found.keys() >= SHOWN:
        raise ValueError("it is no page of greenpg.monitor")
    return found
