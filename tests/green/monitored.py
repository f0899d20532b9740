"""A monitored program that tests order about: `python -m tests.green.monitored BACKEND`."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import greenpg
from greenpg import OperationalError, monitor
from greenpg._helper_process import send
from greenpg.multiplexer import Multiplexer
from greenpg.notify import Listener
from greenpg.pool import ConnectionPool
from greenpg.threads import backend as threads
from greenpg.threads import pristine

DSN = os.environ.get("GREENPG_DSN", "")
LONG = "a_pool_with_a_very_long_name_" * 4


class Program:
    """A pool of two connections, and a page."""

    def __init__(self, name: str) -> None:
        self.backend = greenpg.use(name)
        self.watch = greenpg.watch(0.3)
        self.server: Any = None
        self.pool: Any = None
        self.failing: Any = None
        self.lent: list[Any] = []
        self.multiplexer: Any = None
        self.listener: Any = None
        self.open()

    def open(self) -> None:
        self.pool = ConnectionPool(DSN, min_size=2, name="web", holder="stack")
        self.pool.wait()

    def close(self) -> None:
        self.pool.close()

    def stuck(self) -> int:
        self.lent.append(self.pool.getconn())
        return self.tick()

    def tick(self) -> int:
        return int(self.server.monitor._feed._number)

    def wait(self) -> None:
        self.backend.spawn(self.stuck)

    def give_back(self) -> None:
        self.pool.putconn(self.lent.pop(0))

    def fail(self) -> None:
        self.failing = ConnectionPool(DSN + " dbname=none", min_size=1, name=LONG, open=True)

    def multiplex(self, text: str = "select 1", count: int = 1) -> None:
        self.multiplexer = self.multiplexer or Multiplexer(DSN, name="many", max_size=2)
        for _ in range(count):
            self.backend.spawn(partial(self._execute, text))

    def _execute(self, text: str) -> None:
        with suppress(OperationalError):  # also a cancelled one
            self.multiplexer.execute(text)

    def cancel(self) -> None:
        self.multiplexer.close(0)

    def listen(self, *channels: str) -> None:
        self.listener = self.listener or Listener(DSN, name="news")
        self.subscription = self.listener.subscribe(*channels or (LONG[:60],))

    def notify(self) -> None:
        self.multiplexer.execute("select pg_notify(%s, 'x')", (LONG[:60],))

    def stall(self) -> None:
        pristine("time").sleep(3)

    def serve(self, port: int = 0, **options: Any) -> str:
        self.server = monitor.serve(port, **options)
        return str(self.server.url)

    def end(self) -> None:
        self.server.close()

    def mount(self) -> str:
        return SERVERS[self.backend.name](Mounted())


STUCK = f"monitored.py:{inspect.getsourcelines(Program.stuck)[1] + 1} in "


class Mounted:
    """A WSGI application with the monitor under /ops."""

    def __init__(self) -> None:
        self.monitor = monitor.Monitor()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith("/ops"), path
        below = {"SCRIPT_NAME": "/ops", "PATH_INFO": path.removeprefix("/ops")}
        return self.monitor({**environ, **below}, start_response)


class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def on_threads(app: Any) -> str:
    server = Threading(("127.0.0.1", 0), Quiet)
    server.set_app(app)
    threads.spawn(server.serve_forever)
    return f"http://127.0.0.1:{server.server_port}/ops"


def on_gevent(app: Any) -> str:
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    return f"http://127.0.0.1:{server.server_port}/ops"


def on_eventlet(app: Any) -> str:
    import eventlet
    from eventlet import wsgi

    listener = eventlet.listen(("127.0.0.1", 0))
    eventlet.spawn(wsgi.server, listener, app, log_output=False)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/ops"


SERVERS: dict[str, Callable[[Any], str]] = {
    "threads": on_threads,
    "gevent": on_gevent,
    "eventlet": on_eventlet,
}


def main(name: str) -> None:
    """Carry out orders while the loop runs."""
    program = Program(name)
    send({})
    while line := program.backend.in_thread(sys.stdin.readline):
        details = json.loads(line)
        send({"value": getattr(program, details.pop("order"))(**details)})


if __name__ == "__main__":
    main(*sys.argv[1:])
