"""Lets a test know how many requests have reached the application."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def marked(application: Application) -> Application:
    """Append a byte to the file APP_MARKS for each request that begins."""

    def with_mark(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        marks = os.open(os.environ["APP_MARKS"], os.O_WRONLY | os.O_APPEND)
        os.write(marks, b".")
        os.close(marks)
        return application(environ, start_response)

    return with_mark
