"""Reads the imports of the project's packages; test_layers.py says which are allowed."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "greenpg",
    "greenpg_autopatch",
    "greenpg_bench",
    "greenpg_conformance",
    "greenpg_eventlet",
    "greenpg_gevent",
)
MODULE_NAME = re.compile(r"[A-Za-z_][\w.]*(:\w+)?")


@dataclass(frozen=True)
class Module:
    """One file of the packages."""

    path: Path

    @cached_property
    def name(self) -> str:
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def is_package(self) -> bool:
        return self.path.stem == "__init__"

    @cached_property
    def lines(self) -> int:
        return self.path.read_text().count("\n")

    @cached_property
    def imports(self) -> frozenset[str]:
        """Dotted names of everything imported, at the top or late, `from a import b` as a.b too."""
        return frozenset(name for node in ast.walk(self._parsed()) for name in self._named(node))

    @cached_property
    def runtime_imports(self) -> frozenset[str]:
        """Dotted names of what is imported when the module runs: not `if TYPE_CHECKING:`."""
        tree = self._parsed()
        typing = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        nodes = (node for node in ast.walk(tree) if node not in typing)
        return frozenset(name for node in nodes for name in self._named(node))

    @cached_property
    def pristine(self) -> frozenset[str]:
        """The C modules that the file copies with `pristine`, below any monkey-patch."""
        return frozenset(
            str(node.args[0].value)
            for node in ast.walk(self._parsed())
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "pristine"
            and isinstance(node.args[0], ast.Constant)
        )

    @cached_property
    def module_strings(self) -> frozenset[str]:
        """The strings that can be a module's name, such as import_module's argument."""
        texts = (node.value for node in ast.walk(self._parsed()) if isinstance(node, ast.Constant))
        return frozenset(
            text for text in texts if isinstance(text, str) and MODULE_NAME.fullmatch(text)
        )

    def _parsed(self) -> ast.Module:
        # Not kept: the trees would be a million objects in every leak check's walk.
        return ast.parse(self.path.read_text())

    def _named(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [self._package(node.level), node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from names if all(map(is_module, names)) else [*names, base]

    def _package(self, level: int) -> str:
        if not level:
            return ""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[: len(parts) - level])


def is_module(name: str) -> bool:
    """Return True if a dotted name is that of a file of the project."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def modules() -> list[Module]:
    return [Module(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
