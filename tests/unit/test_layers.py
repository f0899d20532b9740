"""The layers of greenpg, lowest first: a module imports what stands before it or beside it."""

import pytest

from tests import programs

from .layers import Module, modules

LAYERS = (
    ("_backoff", "_early", "_child", "_rollback", "errorcodes", "errors", "backend", "sql", "tz"),
    ("_copyfmt", "_libpq", "_mark", "_replmsg"),
    ("_ops", "_pipe", "_results"),
    ("_state", "sync", "threads"),
    ("_attempt", "_cancel", "_forks", "_repair"),
    ("_begin", "_wait"),
    (
        "_copystream",
        "_fetch",
        "_idle",
        "_listen",
        "_many",
        "_plain",
        "_raw",
        "copy",
        "lobject",
        "pipeline",
    ),
    ("cursor", "connection"),
    (
        "_connect",
        "_follow",
        "_hosts",
        "_link",
        "_stream",
        "_subscription",
        "extensions",
        "extras",
        "notify",
        "patch",
        "replication",
    ),
    ("pool",),
    ("__init__",),
    ("_postmaster", "celery", "embedded", "django", "metrics", "sqlalchemy"),
    ("bench", "conformance"),
    ("doctor",),
    ("cli", "__main__"),
)
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FACE = RANKS["__init__"]

GREEN = {"gevent", "eventlet"}
PLUGINS = {f"greenpg_{library}" for library in GREEN}
OF_PLUGIN = {"greenpg_autopatch": "greenpg_gevent"}  # loaded by programs that may not want it
CONNECTIONS = {"greenpg.connection", "greenpg.cursor", "greenpg._connect"}
BARRED = {"asyncio", "select", "selectors", "socket", "ssl"}
WITH_CTYPES = {"greenpg._libpq", "greenpg.conformance._machine"}
ADAPTERS = {"celery", "django", "metrics", "sqlalchemy"}
# Comparing drivers by name under the loops by name is what these are for.
COMPARISONS = ("greenpg.bench", "greenpg.cli.bench")
POOL_CORE = {"greenpg.pool._state", "greenpg.pool._pool"}

MODULES = modules()
CORE = [module for module in MODULES if module.name.split(".")[0] == "greenpg"]
ADAPTED = [module for module in MODULES if module not in CORE]


def layer(name: str) -> str:
    """The word in LAYERS for a dotted name under greenpg."""
    return [*name.split("."), "__init__"][1]


def own_imports(module: Module) -> set[str]:
    """Layers of greenpg from which the module imports, its own apart."""
    named = {layer(name) for name in module.imports if under(name, "greenpg")}
    return {name if name in RANKS else "__init__" for name in named} - {layer(module.name)}


def heads(module: Module) -> set[str]:
    return {name.split(".")[0] for name in module.imports}


def under(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def each(chosen: list[Module]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", chosen, ids=lambda module: module.name)


@each(CORE)
def test_module_stands_in_a_layer(module):
    assert layer(module.name) in RANKS, "give it a place in LAYERS"


@each(CORE)
def test_module_imports_only_what_stands_before_or_beside_it(module):
    rank = RANKS[layer(module.name)]

    above = {name for name in own_imports(module) if RANKS[name] > rank}

    assert not above


def test_layers_import_each_other_in_no_circle():
    waiting: dict[str, set[str]] = {}
    for module in CORE:
        waiting.setdefault(layer(module.name), set()).update(own_imports(module))

    while free := {name for name, wants in waiting.items() if not wants & waiting.keys()}:
        waiting = {name: wants for name, wants in waiting.items() if name not in free}

    assert not waiting


@each([module for module in CORE if not under(module.name, *COMPARISONS)])
def test_core_names_no_green_library(module):
    named = {name.split(".")[0] for name in module.imports | module.module_strings}

    assert not named & (GREEN | PLUGINS)


@each(ADAPTED)
def test_plugin_names_no_other_library(module):
    package = module.name.split(".")[0]
    own = OF_PLUGIN.get(package, package)
    others = (GREEN | PLUGINS) - {own, own.removeprefix("greenpg_")}

    named = {
        name.replace(":", ".").split(".")[0] for name in module.imports | module.module_strings
    }

    assert not named & others


@each([m for m in MODULES if m in ADAPTED or layer(m.name) in ADAPTERS])
def test_adapter_uses_public_modules_only(module):
    private = {name for name in own_imports(module) - {"__init__"} if name.startswith("_")}

    assert not private


@each([module for module in CORE if RANKS.get(layer(module.name), 0) <= FACE])
def test_driver_leaves_sockets_to_libpq_and_the_backend(module):
    assert not heads(module) & BARRED


@each([module for module in MODULES if module.name not in WITH_CTYPES])
def test_only_libpq_touches_ctypes(module):
    assert "ctypes" not in heads(module)


def test_pool_knows_no_connection_class():
    knowing = {module.name for module in CORE if module.imports & CONNECTIONS}

    assert not knowing & POOL_CORE


@each(MODULES)
def test_file_stays_under_400_lines(module):
    assert module.lines < 400


def loaded_by(statement: str) -> set[str]:
    """Which of ssl and socket a fresh process has loaded after a statement."""
    report = "import sys; print(*({'ssl', 'socket'} & sys.modules.keys()))"
    done = programs.run(f"{statement}; {report}")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["greenpg", "greenpg.extras", "greenpg.patch", "greenpg.embedded"])
def test_importing_greenpg_loads_neither_ssl_nor_socket(name):
    assert loaded_by(f"import {name}") == set()


def test_plugin_of_the_monkey_patch_loads_nothing_before_it_is_asked():
    code = "import sys, greenpg_autopatch; print(*sys.modules)"

    done = programs.run(code)

    assert done.returncode == 0, done.stderr
    heavy = {*GREEN, *PLUGINS, "greenpg", "greenlet", "psycopg2", "socket", "ssl"}
    assert not {*done.stdout.split()} & heavy


@pytest.mark.parametrize("library", sorted(GREEN))
def test_importing_a_plugin_loads_no_more_than_its_library(library):
    assert loaded_by(f"import greenpg_{library}") == loaded_by(f"import {library}")
