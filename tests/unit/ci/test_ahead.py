"""Rules that the compiled modules keep, seen in their source: what mypyc would not tell."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OTHERS = {"Enum", "IntEnum", "IntFlag", "NamedTuple", "Protocol", "Struct", "TypedDict"}
"""Bases of classes that are none of mypyc's."""
ITS_OWN = {"__slots__"}


def compiled() -> list[str]:
    """Their paths: ci/ahead/modules.py."""
    path = ROOT / "ci/ahead/modules.py"
    spec = importlib.util.spec_from_file_location("modules", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.modules())


def classes(path: str) -> Iterator[ast.ClassDef]:
    """The native classes of a module."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            if not bases & OTHERS:
                yield node


@pytest.mark.parametrize("path", compiled())
def test_class_attributes_say_that_they_are(path: str) -> None:
    """Others are of each object, and what a class that is not compiled overrides is not seen."""
    unsaid = [
        f"{node.name}.{target.id}"
        for node in classes(path)
        for line in node.body if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name) and target.id not in ITS_OWN
    ]  # fmt: skip
    assert unsaid == []


@pytest.mark.parametrize("path", compiled())
def test_methods_have_one_name(path: str) -> None:
    """`other = method` in a class gives nothing."""
    aliases = []
    for node in classes(path):
        methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
        for line in node.body:
            value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Name) and value.id in methods:
                aliases.append(f"{node.name}: {ast.unparse(line)}")
    assert aliases == []
