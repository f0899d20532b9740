"""Requests as a WSGI server makes them; Django's test client keeps connections open."""

from __future__ import annotations

from typing import Any

from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory

_application = get_wsgi_application()


def get(path: str, **query: Any) -> str:
    """Return a page; exits from the view propagate, as in a server's task."""
    statuses: list[str] = []
    environ = RequestFactory().get(path, query).environ
    response = _application(environ, lambda status, headers: statuses.append(status))
    try:
        text = b"".join(response).decode()
    finally:
        response.close()
    assert statuses[0].startswith("200 "), text
    return text
