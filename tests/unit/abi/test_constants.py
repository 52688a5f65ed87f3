"""A number of Linux's stands in sentry.abi, once, and everybody takes it from there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ABI = REPOSITORY / "sentry" / "abi"
OWN = {"headers", "layout", "unistd"}
"""Without constants, or with names of calls."""
OF_THE_WIRE = {REPOSITORY / "gofer" / "p9" / "constants.py"}
"""9P2000.L has numbers of its own, some with Linux's names."""


def constants(path: Path) -> Iterator[str]:
    """The names in capitals that a module itself defines."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Assign(targets=targets):
                pass
            case ast.AnnAssign(target=target):
                targets = [target]
            case _:
                continue
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Name) and each.id.isupper():
                    yield each.id


MODULES = sorted(path for path in ABI.glob("*.py") if path.stem not in OWN)
PLACES = {name: path for path in MODULES for name in constants(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.stem))
def test_name_in_one_module_of_the_room_only(path: Path) -> None:
    assert [name for name in constants(path) if PLACES[name] != path] == []


@pytest.mark.parametrize("room", ["sentry", "gofer", "runsc", "kvm"])
def test_name_of_the_kernels_is_not_defined_elsewhere(room: str) -> None:
    again = {
        f"{path.relative_to(REPOSITORY)}: {name} is in sentry.abi.{PLACES[name].stem}"
        for path in sorted((REPOSITORY / room).rglob("*.py"))
        if path.parent != ABI and path not in OF_THE_WIRE
        for name in constants(path)
        if name in PLACES
    }

    assert again == set()
