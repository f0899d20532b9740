"""greenpg's names: psycopg2's, and its own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import psycopg2
import pytest

import greenpg

SUBMODULES = ("errorcodes", "errors", "extensions", "extras", "sql", "tz")
ADAPTERS = ("django", "metrics", "otel", "sqlalchemy")
DB_API = (
    *("apilevel", "threadsafety", "paramstyle", "connect"),
    *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"),
    *("IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"),
    *("Date", "Time", "Timestamp", "DateFromTicks", "TimeFromTicks", "TimestampFromTicks"),
    *("Binary", "STRING", "BINARY", "NUMBER", "DATETIME", "ROWID"),
)


def public(module):
    return {name for name in dir(module) if not name.startswith("_")}


def modules(package):
    """The package and its public modules that need nothing else, by name."""
    inside = (name for _, name, _ in pkgutil.iter_modules(package.__path__))
    wanted = (name for name in inside if not name.startswith("_") and name not in ADAPTERS)
    return [package.__name__, *(f"{package.__name__}.{name}" for name in wanted)]


@pytest.mark.parametrize("name", DB_API)
def test_module_is_a_db_api_module(name):
    assert hasattr(greenpg, name)


def test_every_name_of_psycopg2_is_there():
    assert [name for name in public(psycopg2) if not hasattr(greenpg, name)] == []


@pytest.mark.parametrize("submodule", SUBMODULES)
def test_every_name_of_a_submodule_is_there(submodule):
    theirs = importlib.import_module(f"psycopg2.{submodule}")
    ours = importlib.import_module(f"greenpg.{submodule}")

    missing = {
        name
        for name in public(theirs) - public(ours)
        if not inspect.ismodule(getattr(theirs, name))
    }

    assert missing == set()
    assert getattr(greenpg, submodule) is ours


@pytest.mark.parametrize("submodule", SUBMODULES)
def test_star_import_gives_psycopg2s_names(submodule):
    theirs: dict[str, object] = {}
    ours: dict[str, object] = {}

    exec(f"from psycopg2.{submodule} import *", theirs)
    exec(f"from greenpg.{submodule} import *", ours)

    assert {
        name for name in theirs.keys() - ours.keys() if not inspect.ismodule(theirs[name])
    } == set()


@pytest.mark.parametrize("submodule", SUBMODULES)
def test_names_are_psycopg2s_own_unless_they_are_classes_to_connect_with(submodule):
    theirs = importlib.import_module(f"psycopg2.{submodule}")
    ours = importlib.import_module(f"greenpg.{submodule}")

    changed = {
        name
        for name in public(theirs)
        if hasattr(ours, name) and getattr(ours, name) is not getattr(theirs, name)
    }

    for name in changed - {"set_wait_callback", "wait_select"}:
        assert issubclass(getattr(ours, name), getattr(theirs, name))


def test_classes_stand_in_place_of_the_c_ones():
    assert greenpg.extensions.connection is greenpg.Connection
    assert greenpg.extensions.cursor is greenpg.Cursor
    assert issubclass(greenpg.Connection, psycopg2.extensions.connection)
    assert issubclass(greenpg.extras.DictConnection, greenpg.Connection)
    assert issubclass(greenpg.extras.DictCursor, greenpg.Cursor)
    assert issubclass(greenpg.extras.DictCursor, psycopg2.extras.DictCursor)


def test_errors_are_psycopg2s():
    assert greenpg.Error is psycopg2.Error
    assert greenpg.errors.UniqueViolation is psycopg2.errors.UniqueViolation
    assert greenpg.errors.lookup("23505") is psycopg2.errors.UniqueViolation


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("BackendError", psycopg2.InterfaceError),
        ("DeadlineExceeded", psycopg2.errors.QueryCanceled),
        ("FeatureUnavailable", psycopg2.NotSupportedError),
        ("NotGreenWarning", RuntimeWarning),
        ("ConnectionFactoryWarning", RuntimeWarning),
    ],
)
def test_own_errors_are_of_the_fitting_kind(name, base):
    assert issubclass(getattr(greenpg.errors, name), base)


def test_versions_are_psycopg2s_and_ours():
    assert vars(greenpg)["__version__"] == vars(psycopg2)["__version__"]
    assert greenpg.__libpq_version__ == psycopg2.__libpq_version__
    assert greenpg.version.split(".")[0].isdigit()


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'greenpg' has no attribute 'no_such_name'"):
        _ = greenpg.no_such_name


@pytest.mark.parametrize("module", modules(greenpg))
def test_listed_names_exist_and_are_documented(module):
    found = importlib.import_module(module)

    for name in getattr(found, "__all__", ()):
        thing = getattr(found, name)
        if callable(thing) and str(getattr(thing, "__module__", "")).startswith("greenpg"):
            assert inspect.getdoc(thing), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("thing", [greenpg.Connection, greenpg.Cursor, greenpg.ConnectionLock])
def test_public_methods_of_the_classes_are_documented(thing):
    for name, member in vars(thing).items():
        if not name.startswith("_") and callable(member):
            assert inspect.getdoc(member), f"{thing.__name__}.{name} has no docstring"


@pytest.mark.parametrize("kind", ["connection", "cursor"])
def test_overridden_methods_take_what_psycopg2s_take(kind):
    ours = getattr(greenpg, kind.capitalize())

    for name in public(getattr(psycopg2._psycopg, kind)):
        assert hasattr(ours, name), name


@pytest.mark.parametrize("package", ["greenpg_gevent", "greenpg_eventlet"])
def test_plug_ins_have_the_same_names(package):
    module = importlib.import_module(package)

    wanted = {"ConnectionLock", "backend", "patch_psycopg", "unpatch_psycopg"}
    assert wanted <= set(module.__all__) <= public(module)
    for name in wanted - {"backend"}:
        assert inspect.getdoc(getattr(module, name))
