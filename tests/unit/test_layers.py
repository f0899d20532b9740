"""The rooms of greenpg and what each may import; a module without a room fails the test."""

from collections.abc import Callable, Iterable

import pytest

from tests import programs

from .layers import ROOT, Module, modules

# Lowest first: a module imports what stands before its room, or in the same line of the table.
FLOORS = (
    (
        "_checks",
        "_command",
        "_drivers",
        "_fork_hooks",
        "_instances",
        "_sqlstate",
        "errorcodes",
        "errors",
        "sql",
        "tz",
    ),
    ("backend", "instruments"),
    ("_helper_process", "threads"),
    ("_session",),
    ("sync",),
    ("_protocol",),
    ("_psycopg2",),
    ("_written",),
    ("_green_classes", "_large_results", "_notifications", "copy", "lobject", "pipeline"),
    ("_named_fetches",),
    ("cursor",),
    ("connection",),
    ("_connecting",),
    ("extensions", "notify", "patch", "psycopg3", "replication", "stalls"),
    ("extras", "pool"),
    ("multiplexer",),
    ("__init__",),
    ("celery", "django", "embedded", "metrics", "monitor", "otel", "sqlalchemy"),
    ("conformance",),
    ("doctor",),
    ("cli", "__main__"),
)
RANKS = {room: rank for rank, floor in enumerate(FLOORS) for room in floor}
FACE = RANKS["__init__"]
DRIVER = [room for room, rank in RANKS.items() if rank <= FACE]

CORE = ("greenpg._session", "greenpg.sync", "greenpg.backend", "greenpg._fork_hooks")
POOL = "greenpg.pool"
# The modules with a driver. Core and the pool's decisions import none of them, even indirectly.
DRIVERS = (
    "psycopg2", "psycopg", "ctypes", "greenpg._protocol", "greenpg._psycopg2", "greenpg.connection",
    "greenpg.cursor", "greenpg._connecting", "greenpg.psycopg3",
)  # fmt: skip
# The pool's classes for users, and what differs between the drivers.
POOL_ENTRANCES = {
    "greenpg.pool",
    "greenpg.pool._connection_pool",
    "greenpg.pool._pool_set",
    "greenpg.pool._psycopg2",
    "greenpg.pool._psycopg3",
    "greenpg.pool.condition",
}

GREEN = {"gevent", "eventlet"}
PLUGINS = {f"greenpg_{library}" for library in GREEN}
OF_PLUGIN = {"greenpg_autopatch": "greenpg_gevent"}  # loaded by programs that may not use it
SOCKETS = {"_socket", "asyncio", "select", "selectors", "socket", "ssl"}
# Sockets below any monkey-patch, where nothing waits: a dead socket for forked children, a look
# at whether a server has closed an idle connection, and the backend of OS threads.
# It also ends a session from outside C.
WITH_SOCKETS = {
    "greenpg.threads", "greenpg._session.forks", "greenpg.pool._managed",
    "greenpg._session.hang_up",
}  # fmt: skip
WITH_CTYPES = {
    "greenpg._protocol.libpq",
    "greenpg._protocol.cancel_blocking",
    "greenpg._protocol.copy_buffers",
    "greenpg_bench.c_client",
    "greenpg_conformance.toolkit.machine",
}
ADAPTERS = ("celery", "django", "metrics", "otel", "sqlalchemy")
# These compare named drivers under named loops.
COMPARISONS = ("greenpg_bench", "greenpg_bench.command")

MODULES = modules()
BY_NAME = {module.name: module for module in MODULES}
OWN = [module for module in MODULES if module.name.split(".")[0] == "greenpg"]
ABOVE = ("greenpg_bench", "greenpg_conformance")  # they stand on all of greenpg but its commands
GREENPGS = [module for module in MODULES if module.name.split(".")[0] in ("greenpg", *ABOVE)]
PLUGIN_MODULES = [module for module in MODULES if module not in GREENPGS]


def room(name: str) -> str:
    """The word in FLOORS for a dotted name under greenpg."""
    found = [*name.split("."), "__init__"][1]
    return found if found in RANKS else "__init__"


def under(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def heads(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def targets(module: Module) -> set[str]:
    """The modules of this project that the module imports."""
    return {found for name in module.imports if (found := resolved(name)) is not None}


def resolved(name: str) -> str | None:
    """The module of this project that holds a dotted name, if one does."""
    while name and name not in BY_NAME:
        name = name.rpartition(".")[0]
    return name or None


def offenders(
    chosen: Iterable[Module], rule: Callable[[Module], Iterable[str]]
) -> dict[str, set[str]]:
    """The modules that break a rule, which returns what they may not have."""
    return {module.name: found for module in chosen if (found := set(rule(module)))}


def test_each_module_is_in_a_room():
    def strangers(module: Module) -> Iterable[str]:
        return {[*module.name.split("."), "__init__"][1]} - RANKS.keys()

    assert not offenders(OWN, strangers), "give them a place in FLOORS"


def test_modules_import_only_what_stands_before_or_beside_them():
    def above(module: Module) -> Iterable[str]:
        rank = RANKS[room(module.name)]
        return {n for n in targets(module) if under(n, "greenpg") and RANKS[room(n)] > rank}

    assert not offenders(OWN, above)


def test_private_modules_are_imported_within_their_room_only():
    """`greenpg.pool._state` is for the pool; a private room such as `greenpg._session` is not."""

    def foreign(module: Module) -> Iterable[str]:
        package = module.name if module.is_package else module.name.rpartition(".")[0]
        for name in targets(module):
            parent, _, leaf = name.rpartition(".")
            if (
                leaf.startswith("_")
                and parent not in ("", "greenpg")
                and not under(package, parent)
            ):
                yield name

    assert not offenders(MODULES, foreign)


def test_modules_import_each_other_in_no_circle():
    """Within a room too, and for typing too. A module may import its own package's `__init__`."""
    waiting = {
        module.name: {name for name in targets(module) if not under(module.name, name)}
        for module in MODULES
    }

    while free := {name for name, wants in waiting.items() if not wants & waiting.keys()}:
        waiting = {name: wants for name, wants in waiting.items() if name not in free}

    assert not waiting


def reached(module: Module) -> set[str]:
    """What a module imports when it runs, directly or indirectly, except errors.py."""
    found: set[str] = set()
    left = [module.name]
    while left:
        name = left.pop()
        for imported in BY_NAME[name].runtime_imports - found:
            found.add(imported)
            target = resolved(imported)
            if target not in (None, "greenpg", "greenpg.errors", name):
                left.append(str(target))
    return found


def drivers(module: Module) -> Iterable[str]:
    return {name for name in reached(module) if under(name, *DRIVERS)}


def test_core_knows_no_driver():
    assert not offenders([m for m in OWN if under(m.name, *CORE)], drivers)


def test_core_takes_its_errors_from_the_driver():
    def errors(module: Module) -> Iterable[str]:
        return {name for name in module.imports if under(name, "greenpg.errors")}

    assert not offenders(
        [m for m in OWN if under(m.name, "greenpg._session", "greenpg.sync")], errors
    )


def test_pool_knows_no_driver():
    decisions = [m for m in OWN if under(m.name, POOL) and m.name not in POOL_ENTRANCES]

    assert not offenders(decisions, drivers)


PROTOCOL = [module for module in OWN if under(module.name, "greenpg._protocol")]


def test_protocol_knows_no_session():
    allowed = ("greenpg._protocol", "greenpg.errors", "greenpg.backend")

    def others(module: Module) -> Iterable[str]:
        return {name for name in targets(module) if not under(name, *allowed)} - {"greenpg"}

    assert not offenders(PROTOCOL, others)


def test_protocol_waits_for_nothing():
    assert not offenders(PROTOCOL, lambda module: heads(module.imports) & {"time", *SOCKETS})


def test_nothing_but_plugins_names_a_green_library():
    neutral = [module for module in GREENPGS if not under(module.name, *COMPARISONS)]

    def named(module: Module) -> Iterable[str]:
        return heads(module.imports | module.module_strings) & (GREEN | PLUGINS)

    assert not offenders(neutral, named)


def test_plugins_name_no_other_library():
    def others(module: Module) -> Iterable[str]:
        package = module.name.split(".")[0]
        own = OF_PLUGIN.get(package, package)
        strings = {name.replace(":", ".") for name in module.imports | module.module_strings}
        return heads(strings) & ((GREEN | PLUGINS) - {own, own.removeprefix("greenpg_")})

    assert not offenders(PLUGIN_MODULES, others)


def test_adapters_use_public_modules_only():
    def private(module: Module) -> Iterable[str]:
        own = module.name.split(".")[: 2 if module in OWN else 1]
        foreign = {name for name in targets(module) if not under(name, ".".join(own))}
        return {name for name in foreign if any(part.startswith("_") for part in name.split("."))}

    adapters = [m for m in MODULES if m in PLUGIN_MODULES or room(m.name) in ADAPTERS]
    assert not offenders(adapters, private)


def test_driver_leaves_sockets_to_libpq_and_the_backend():
    driver = [m for m in OWN if room(m.name) in DRIVER and m.name not in WITH_SOCKETS]

    assert not offenders(driver, lambda module: (heads(module.imports) | module.pristine) & SOCKETS)


def test_only_libpq_touches_ctypes():
    others = [module for module in MODULES if module.name not in WITH_CTYPES]

    assert not offenders(others, lambda module: heads(module.imports) & {"ctypes"})


def test_nothing_imports_the_commands():
    def commands(module: Module) -> Iterable[str]:
        return {name for name in targets(module) if name.split(".")[-1] in ("cli", "command")}

    below = [module for module in MODULES if module.name != "greenpg.__main__"]
    assert not offenders(below, commands)


def test_the_suite_knows_no_benchmark():
    def benchmarks(module: Module) -> Iterable[str]:
        return {name for name in targets(module) if under(name, "greenpg_bench")}

    others = [m for m in MODULES if not under(m.name, "greenpg_bench")]
    assert not offenders(others, benchmarks)


def test_files_hold_one_idea():
    tests = [Module(path) for path in (ROOT / "tests").rglob("*.py")]

    assert {file.name: file.lines for file in [*MODULES, *tests] if file.lines > 500} == {}


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
