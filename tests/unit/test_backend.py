"""Finding backends, and the errors of faulty ones."""

from __future__ import annotations

import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

import greenpg
from greenpg import backend as backends
from greenpg import threads
from greenpg.errors import BackendError
from tests import programs

NAMES = ("gevent", "eventlet", "threads")


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.setattr(backends, "_chosen", None)
    monkeypatch.delenv("GREENPG_BACKEND", raising=False)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution that registers backends, for the length of a test."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(entry_points, **modules):
        info = tmp_path / "somebodys_backend-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: somebodys-backend\nVersion: 1.0\n"
        )
        lines = ["[greenpg.backends]", *entry_points]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)

    return install


def in_a_child(code, **environ):
    """Run the code in a process of its own; return what it printed."""
    done = programs.run(code, env={**environ, "PATH": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def whole(**changes):
    """An object that has all members of a backend."""
    members = {name: getattr(threads.backend, name) for name in backends._MEMBERS}
    return SimpleNamespace(**{**members, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_built_in_backends_are_found_by_name(name):
    assert backends.load(name).name == name
    assert backends.load(name) is backends.load(name)


def test_backend_of_another_distribution_is_found(distribution):
    distribution(
        ["somebodys = somebodys_backend:made"],
        somebodys_backend="from greenpg.threads import Threads\nmade = Threads()",
    )

    found = greenpg.use("somebodys")

    assert found is sys.modules["somebodys_backend"].made
    assert backends.current() is found


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(BackendError, match=r"unknown backend 'gevnet'.*eventlet, gevent, threads"):
        greenpg.use("gevnet")


def test_unknown_name_where_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [])

    with pytest.raises(BackendError, match="unknown backend 'gevent'; installed backends: none"):
        backends.load("gevent")


def test_missing_library_is_refused_by_its_name(distribution):
    distribution(
        ["lacking = lacking_backend:made"],
        lacking_backend="import no_such_green_library\nmade = None",
    )

    with pytest.raises(BackendError, match=r"'lacking' cannot .* named 'no_such_green_library'"):
        backends.load("lacking")


@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_plug_in_without_its_library_says_what_to_install(library):
    code = f"import sys; sys.modules[{library!r}] = None; import greenpg_{library}"

    done = programs.run(code)

    said = f"greenpg_{library} needs {library}; pip install 'greenpg[{library}]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"
    assert done.stderr.count("Traceback") == 1


def test_entry_point_that_names_nothing_is_refused(distribution):
    distribution(["empty = empty_backend:made"], empty_backend="")

    with pytest.raises(BackendError, match="backend 'empty' cannot be loaded"):
        backends.load("empty")


def test_error_in_a_plug_in_propagates_unchanged(distribution):
    distribution(["broken = broken_backend:made"], broken_backend="raise LookupError('broken')")

    with pytest.raises(LookupError, match="broken"):
        backends.load("broken")


@pytest.mark.parametrize("member", backends._MEMBERS)
def test_missing_member_is_named(member):
    backend = whole()
    delattr(backend, member)

    with pytest.raises(BackendError, match=f"lacks {member}"):
        greenpg.use(backend)


def test_several_missing_members_are_named_with_the_backend():
    with pytest.raises(BackendError, match="backend 'mine' lacks can_wait, capabilities, current"):
        greenpg.use(SimpleNamespace(name="mine"))


def test_entry_point_with_missing_members_is_refused(distribution):
    distribution(["part = part_backend:made"], part_backend="class made: pass\nmade = made()")

    with pytest.raises(BackendError, match="lacks"):
        backends.load("part")
    with pytest.raises(BackendError, match="lacks"):
        backends.load("part")


def test_class_in_place_of_an_instance_is_refused():
    given: Any = threads.Threads

    with pytest.raises(BackendError, match="Threads is a class; pass an instance"):
        greenpg.use(given)


@pytest.mark.parametrize("given", [None, 5, b"gevent", object()])
def test_what_is_no_backend_is_refused(given):
    with pytest.raises(BackendError):
        greenpg.use(given)

    assert backends.chosen() is None


def test_refused_choice_leaves_the_former_one():
    greenpg.use("threads")

    with pytest.raises(BackendError):
        greenpg.use("no such")

    assert backends.chosen() is threads.backend


def test_object_with_all_members_is_taken():
    backend = whole(name="mine")

    assert greenpg.use(backend) is backend
    assert backends.current() is backend


def test_threads_are_the_default():
    assert backends.chosen() is None
    assert backends.current() is threads.backend


@pytest.mark.parametrize("name", NAMES)
def test_variable_chooses(name):
    code = "import greenpg.backend; print(greenpg.backend.current().name)"

    assert in_a_child(code, GREENPG_BACKEND=name) == name


def test_use_goes_over_the_variable(monkeypatch):
    monkeypatch.setenv("GREENPG_BACKEND", "gevent")

    greenpg.use("threads")

    assert backends.current() is threads.backend


def test_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("GREENPG_BACKEND", "")

    assert backends.chosen() is None


def test_wrong_variable_is_an_error_at_the_first_connect_and_use_mends_it(monkeypatch):
    monkeypatch.setenv("GREENPG_BACKEND", "gevnet")

    with pytest.raises(BackendError, match="gevnet"):
        greenpg.connect("host=127.0.0.1 port=1")
    greenpg.use("threads")
    with pytest.raises(greenpg.OperationalError):
        greenpg.connect("host=127.0.0.1 port=1")


def test_importing_greenpg_loads_no_green_library():
    code = "import sys, greenpg; print({'gevent', 'eventlet'} & sys.modules.keys())"

    assert in_a_child(code) == "set()"


@pytest.mark.parametrize("library", ["", "gevent", "eventlet"])
def test_import_leaves_socket_and_ssl_to_a_later_monkey_patch(library):
    first, ours = (f"import {library}", f"greenpg_{library}") if library else ("", "greenpg")
    code = (
        f"{first}\nimport sys; before = set(sys.modules); import {ours}\n"
        "print({'ssl', '_ssl', 'socket', '_socket'} & (set(sys.modules) - before))"
    )

    assert in_a_child(code) == "set()"


def test_threadsafety_is_the_backends(monkeypatch):
    found = [greenpg.threadsafety]
    greenpg.use("gevent")
    found.append(greenpg.threadsafety)

    assert found == [2, 1]
