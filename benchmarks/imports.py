"""What the Sentry's imports cost in memory, room by room.

    python -m benchmarks.imports > docs/benchmarks/imports.md

A process imports what a Sentry does before it is locked in, interpreted, and counts for each room
its modules and the KiB that are allocated while they run (tracemalloc): classes, functions,
constants, names. `tests/unit/test_imported.py` keeps the table as a bound.
"""

from __future__ import annotations

import importlib._bootstrap
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

ROOMS = ("gofer", "kvm", "runsc", "sentry")
LIBRARIES = "libraries"
FEW = 5
"""Rooms of fewer modules are one row."""
OTHERS, ALL = "others", "together"


def room(name: str) -> str:
    """Of a module: sentry.vfs, or what all libraries are."""
    top, _, below = name.partition(".")
    return f"{top}.{below.partition('.')[0]}".rstrip(".") if top in ROOMS else LIBRARIES


def measured(imports: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """Modules and bytes of each room, that of a module without those that it imports."""
    modules, sizes, below = Counter[str](), Counter[str](), [0]
    bootstrap: Any = importlib._bootstrap
    load = bootstrap._load_unlocked

    def counted(spec: Any) -> ModuleType:
        before = tracemalloc.get_traced_memory()[0]
        below.append(0)
        try:
            module: ModuleType = load(spec)
        finally:
            grown = tracemalloc.get_traced_memory()[0] - before
            sizes[room(spec.name)] += grown - below.pop()
            below[-1] += grown
        modules[room(spec.name)] += 1
        return module

    tracemalloc.start(1)
    bootstrap._load_unlocked = counted
    try:
        imports()
    finally:
        bootstrap._load_unlocked = load
        tracemalloc.stop()
    return modules, sizes


def sentry() -> None:
    """What is imported before the lock-in."""
    from runsc.launch import finder  # noqa: PLC0415  all of this is counted

    finder.install()
    sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "Ahead"]
    from runsc.launch import programs  # noqa: F401, PLC0415
    from sentry.boot.sandbox import preload  # noqa: PLC0415

    preload("kvm")


def rows() -> dict[str, tuple[int, int]]:
    """Room → modules and KiB, the largest first, and all together."""
    modules, sizes = measured(sentry)
    for name in [name for name in modules if modules[name] < FEW]:
        sizes[OTHERS] += sizes.pop(name)
        modules[OTHERS] += modules.pop(name)
    found = {name: (modules[name], size >> 10) for name, size in sizes.most_common()}
    return found | {ALL: (modules.total(), sizes.total() >> 10)}


def main() -> None:
    """Print the table."""
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"# What the Sentry imports, Python {version}\n")
    print("Written by `python -m benchmarks.imports`: before the lock-in, not compiled ahead.\n")
    print("| room | modules | KiB |\n|---|--:|--:|")
    for name, (count, kib) in rows().items():
        print(f"| {name} | {count} | {kib} |")


if __name__ == "__main__":
    main()
