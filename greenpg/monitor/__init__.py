"""The monitor: a page with the pools of the process, their borrowers, stalls and errors.

`Monitor` (`_application`) is the WSGI application: a page of three files (`static`), the same as
JSON, and a stream of server-sent events. `Server` (`_server`) is a small HTTP server over the
backend, so that one code is green on each. A `Feed` (`_feed`) has the task that ticks. At a tick it
takes a sample of each pool for the charts (`_history`) and wakes the streams; the first of them
makes what all show (`_snapshot`), so that many open pages cost little more than one, and none at
all no more than the samples.
`greenpg top` (`command`) reads the same stream (`_reader`) and draws it (`_terminal`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenpg._checks import check_count, check_texts
from greenpg.backend import as_backend

from ._application import Monitor
from ._backend import fitting_backend

if TYPE_CHECKING:
    from greenpg.backend import Backend

    from ._server import Server

__all__ = ["Monitor", "serve"]


def serve(
    port: int,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    details: bool = False,
    backend: str | Backend | None = None,
) -> Server:
    """Serve the monitor from tasks of the backend, and return the server at once.

    Port 0 is a free one: see the server's `url` and `port`. `close()` ends it, and so does the end
    of the process. For `token` and `details` see `Monitor`.
    """
    check_count("port", port, most=65535)
    check_texts(host=host)
    from ._server import Server  # late: importing greenpg.monitor must not load sockets

    chosen = fitting_backend() if backend is None else as_backend(backend)
    return Server(Monitor(token=token, details=details, backend=chosen), chosen, host, port)
