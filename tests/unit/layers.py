"""Reads the imports of the project's packages; test_layers.py says which are allowed."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("greenpg", "greenpg_autopatch", "greenpg_gevent", "greenpg_eventlet")
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
    def lines(self) -> int:
        return self.path.read_text().count("\n")

    @cached_property
    def imports(self) -> frozenset[str]:
        """Dotted names of everything imported, at the top or late, `from a import b` as a.b too."""
        return frozenset(name for node in ast.walk(self._tree) for name in self._named(node))

    @cached_property
    def module_strings(self) -> frozenset[str]:
        """The strings that can be a module's name, such as import_module's argument."""
        texts = (node.value for node in ast.walk(self._tree) if isinstance(node, ast.Constant))
        return frozenset(
            text for text in texts if isinstance(text, str) and MODULE_NAME.fullmatch(text)
        )

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    def _named(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [self._package(node.level), node.module]))
            yield from [base] if node.module else []
            yield from (f"{base}.{alias.name}" for alias in node.names)

    def _package(self, level: int) -> str:
        if not level:
            return ""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[: len(parts) - level])


def modules() -> list[Module]:
    return [Module(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
