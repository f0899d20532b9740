"""python smoke.py EXTRA: what greenpg, installed with this extra, must be able to do.

The server is that of GREENPG_DSN. Nothing of the checkout may be importable.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psycopg2
from psycopg2.extensions import parse_dsn

import greenpg

DSN: Final = os.environ["GREENPG_DSN"]
PYTHON: Final = Path(sys.executable)
REPORT: Final = {
    "date": "2026-01-02",
    "machine": "one",
    "versions": {},
    "command": "greenpg bench",
    "quick": True,
    "workloads": {"cancel": {"contenders": {"greenpg/gevent": {"samples": [{"stall": 1.0}]}}}},
}


def greenpg_command(*words: str) -> str:
    """Run `greenpg`, as it is on the PATH of its users, and return what it printed."""
    command = [str(PYTHON.with_name("greenpg")), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def answers(conn: Any) -> None:
    with closing(conn), conn.cursor() as cur:
        cur.execute("select 6 * 7")
        assert cur.fetchone() == (42,)


def installed() -> None:
    assert "site-packages" in greenpg.__file__
    assert version("greenpg") == greenpg.version
    assert greenpg_command("--version").startswith(f"greenpg {greenpg.version},")
    assert "doctor" in greenpg_command()
    answers(greenpg.connect(DSN, backend="threads"))


def green(library: str) -> None:
    greenpg_command("doctor", DSN)
    plugin = importlib.import_module(f"greenpg_{library}")
    plugin.patch_psycopg()
    backend = plugin.backend
    tasks = [backend.spawn(lambda: answers(psycopg2.connect(DSN))) for _ in range(3)]
    assert all(task.join(30) for task in tasks)
    plugin.unpatch_psycopg()
    answers(psycopg2.connect(DSN))


def psycopg3() -> None:
    conn = importlib.import_module("greenpg.psycopg3").connect(DSN)
    answers(conn)


def commands() -> None:
    for command in ("demo", "bench", "conformance"):
        assert "usage" in greenpg_command(command, "--help")


def server() -> None:
    commands()
    with importlib.import_module("greenpg.embedded").running() as made:
        answers(greenpg.connect(made.dsn))


def demo() -> None:
    server()
    green("gevent")
    importlib.import_module("psycogreen.gevent")


def sqlalchemy() -> None:
    library: Any = importlib.import_module("sqlalchemy")
    engine = library.create_engine("postgresql+greenpg://", creator=lambda: greenpg.connect(DSN))
    with engine.connect() as conn:
        assert conn.execute(library.text("select 6 * 7")).scalar() == 42
    engine.dispose()


def django() -> None:
    given = parse_dsn(DSN)
    names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user"}
    database: dict[str, Any] = {ours: given.pop(name, "") for ours, name in names.items()}
    options = {"ENGINE": "greenpg.django", "OPTIONS": given}
    settings = importlib.import_module("django.conf").settings
    settings.configure(DATABASES={"default": {**database, **options}})
    answers(importlib.import_module("django.db").connection)


def metrics() -> None:
    with greenpg.ConnectionPool(DSN, backend="threads") as pool:
        assert [*importlib.import_module("greenpg.metrics").PoolCollector(pool).collect()]


def otel() -> None:
    with greenpg.ConnectionPool(DSN, backend="threads") as pool:
        importlib.import_module("greenpg.otel").PoolObserver(pool)


def plots() -> None:
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        report.write_text(json.dumps(REPORT))
        greenpg_command("bench", "--from", str(report), "--plots", folder)
        assert "longest stall" in Path(folder, "cancel.svg").read_text()


def modules(*names: str) -> Callable[[], None]:
    def importable() -> None:
        for name in names:
            importlib.import_module(name)

    return importable


EXTRAS: Final[Mapping[str, Callable[[], None]]] = {
    "none": installed,
    "gevent": lambda: green("gevent"),
    "eventlet": lambda: green("eventlet"),
    "psycopg3": psycopg3,
    "cli": commands,
    "server": server,
    "demo": demo,
    "sqlalchemy": sqlalchemy,
    "django": django,
    "metrics": metrics,
    "otel": otel,
    "plots": plots,
    "bench": modules("asyncpg", "cffi", "psycogreen", "psycopg", "psycopg_pool", "uvloop"),
    "docs": modules("sphinx", "furo", "myst_parser", "greenpg_gevent", "greenpg.sqlalchemy"),
    "frameworks": modules("celery", "django", "flask", "gunicorn", "greenpg.celery"),
}

if __name__ == "__main__":
    installed()
    EXTRAS[sys.argv[1]]()
