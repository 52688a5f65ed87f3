"""Modules that import each other in a circle: none at run time, four at most for their types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("sentry", "runsc", "kvm", "gofer")
SMALL = 6
"""Modules: of vfs what a file, a name and a mount are; two stand apart as they are not compiled."""
Graph = dict[str, set[str]]


def module_of(path: Path) -> str:
    """Its dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(body: list[ast.stmt], types: bool) -> Iterator[str]:
    """What statements outside of functions import; with `types` also what only mypy sees."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If):
            if types or ast.unparse(node.test) != "TYPE_CHECKING":
                yield from imports(node.body, types)
            yield from imports(node.orelse, types)
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from imports(node.body, types)


def graph(types: bool) -> Graph:
    """Module → those that it imports from."""
    files = {module_of(p): p for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    found: Graph = {}
    for name, path in files.items():
        wanted = set(imports(ast.parse(path.read_text()).body, types)) & files.keys()
        found[name] = {w for w in wanted if w != name and files[w].name != "__init__.py"}
    return found


def circles(edges: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module: Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(at: str) -> None:
        index[at] = low[at] = len(index)
        stack.append(at)
        for to in sorted(edges[at]):
            if to not in index:
                visit(to)
            if to in stack:
                low[at] = min(low[at], low[to])
        if low[at] == index[at]:
            ring = stack[stack.index(at) :]
            del stack[stack.index(at) :]
            if len(ring) > 1:
                found.append(sorted(ring))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return sorted(found)


def test_no_modules_import_each_other_at_run_time() -> None:
    assert circles(graph(types=False)) == []


def test_circles_for_types_stay_small() -> None:
    assert [ring for ring in circles(graph(types=True)) if len(ring) > SMALL] == []
