"""tests/unit mirrors the source: a test file for each module, or a reason in mirror.toml.

A test file named after a package stands for its modules.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
UNIT = REPOSITORY / "tests" / "unit"
ROOMS = ("sentry", "gofer", "kvm", "runsc", "guest_stubs")
NO_LOGIC = ("__init__", "__main__", "_build", "_build_unicorn")
TABLE = tomllib.loads((UNIT / "mirror.toml").read_text())


def modules() -> Iterator[str]:
    """All of them, as "room/folder/name"."""
    for room in ROOMS:
        for path in (REPOSITORY / room).rglob("*.py"):
            if path.stem not in NO_LOGIC:
                yield str(path.relative_to(REPOSITORY).with_suffix(""))


def file_of(module: str) -> str:
    """The name of a test file, from tests/unit on."""
    folder, _, name = module.rpartition("/")
    inner = folder.removeprefix("sentry").strip("/")
    return f"{inner}/test_{name}.py".lstrip("/")


def is_tested(module: str) -> bool:
    """It has a test file, or a package that it is in has."""
    while "/" in module:
        if (UNIT / file_of(module)).exists():
            return True
        module = module.rpartition("/")[0]
    return False


def listed() -> list[str]:
    """The modules of the table; "*" is all of a folder that is generated."""
    return [
        f"{folder}/{name}"
        for row in TABLE["untested"]
        for folder, names in row["modules"].items()
        for name in (generated(folder) if names == "*" else names.split())
    ]


def generated(folder: str) -> list[str]:
    """Names of the modules there."""
    return [module.rpartition("/")[2] for module in modules() if module.startswith(folder + "/")]


def test_each_module_has_a_test_file_or_a_reason() -> None:
    assert sorted(set(modules()) - set(listed()) - set(filter(is_tested, modules()))) == []


def test_table_has_no_stale_row() -> None:
    rows = listed()
    assert sorted(row for row in rows if rows.count(row) > 1) == []
    assert sorted(set(rows) - set(modules())) == []
    assert sorted(filter(is_tested, rows)) == []


def test_each_reason_names_tests_that_there_are() -> None:
    for row in TABLE["untested"]:
        assert row["reason"]
        for pattern in row["tests"]:
            assert list(REPOSITORY.glob(pattern)), pattern


def test_each_test_file_has_a_module_or_a_reason() -> None:
    known = {file_of(module) for module in modules()}
    known |= {file_of(module.rpartition("/")[0]) for module in modules() if "/" in module}
    found = {str(path.relative_to(UNIT)) for path in UNIT.rglob("test_*.py")}
    others = TABLE["other_tests"]
    assert sorted(found - known - set(others)) == []
    assert sorted(set(others) - found | set(others) & known) == []
