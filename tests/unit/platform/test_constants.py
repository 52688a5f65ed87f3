"""Each number that C and Python share is written down once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sentry.platform import constants
from sentry.platform.interface import ExitKind

ROOT = Path(constants.__file__).parents[2]
ROOMS = ("sentry", "kvm", "gofer", "guest_stubs", "runsc")
HEADERS = (ROOT / "guest_stubs/memory_map.h", ROOT / "guest_stubs/layout.h")
EXIT_KINDS = ROOT / "sentry/platform/native/context_common.h"
DEFINE = re.compile(r"^ *# *define +(\w+) +(\S.*?)\s*(?:/\*.*)?$", re.M)
SHARED = {name for header in HEADERS for name, _ in DEFINE.findall(header.read_text())} - {"U64"}


def sources(*suffixes: str) -> Iterator[Path]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in suffixes and path not in HEADERS and ".cdef" not in path.suffixes:
                yield path


def definitions(text: str, python: bool) -> set[str]:
    if not python:
        return {name for name, _ in DEFINE.findall(text)}
    assigned = re.findall(r"^([A-Z]\w+)(?:: *Final(?:\[int\])?)? *= *(.+)$", text, re.M)
    return {name for name, value in assigned if not value.startswith("lib.")}


def second_definitions(path: Path) -> list[str]:
    text = path.read_text()
    found = sorted(definitions(text, path.suffix == ".py") & SHARED)
    found += re.findall(r"0x7fffffe00000|0x0*fffffffff000\b|384(?:ull)? << 30", text, re.I)
    if path.suffix == ".py":
        found += re.findall(r"^_?PAGE\w* *(?::.*)?= *(?:4096|0x1000|1 << 12)", text, re.M)
    return found


def test_no_file_has_a_second_definition() -> None:
    found = {str(path): second_definitions(path) for path in sources(".py", ".c", ".h", ".S")}
    assert len(found) > 500
    assert {path: names for path, names in found.items() if names} == {}


def test_python_has_the_numbers_of_the_headers() -> None:
    values = {k: v for k, v in vars(constants).items() if k.isupper() and k != "PAGE_MASK"}
    assert values.keys() <= SHARED
    assert constants.PAGE_SIZE == 4096 and constants.TASK_SIZE == (1 << 47) - (2 << 20)
    assert constants.PTE_NX == 1 << 63 and constants.ENTRY_BASE == constants.TASK_SIZE
    assert constants.DOORBELL_GPA == constants.RW_WINDOW_GPA + constants.WINDOW_SPAN


def test_exit_kinds_are_those_of_the_c_half() -> None:
    names = re.findall(r"^    EXIT_(\w+),$", EXIT_KINDS.read_text(), re.M)
    assert {name: number for number, name in enumerate(names)} == {
        kind.name: kind.value for kind in ExitKind
    }
