"""What the Sentry's imports cost in memory, room by room.

    python -m benchmarks.imports

A process imports what a Sentry does before it is locked in, interpreted, and counts for each room
its modules and the KiB that are allocated while they run (tracemalloc): classes, functions,
constants, names. What comes on top: CPython itself, 3 MiB, and what the allocator cannot use.
`tests/unit/boot/test_preloaded.py` keeps a bound for each room.
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


def room(name: str) -> str:
    """Of a module: sentry.vfs, or what all libraries are."""
    top, _, below = name.partition(".")
    return f"{top}.{below.partition('.')[0]}".rstrip(".") if top in ROOMS else LIBRARIES


def measured(imports: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """Modules and bytes of each room, that of a module without those that it imports."""
    modules, sizes, below = Counter[str](), Counter[str](), [0]
    bootstrap: Any = importlib._bootstrap  # type: ignore[attr-defined]
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


def main() -> None:
    """Print the table."""
    modules, sizes = measured(sentry)
    print("| room | modules | KiB |\n|---|--:|--:|")
    for name, size in sizes.most_common():
        print(f"| {name} | {modules[name]} | {size >> 10} |")
    print(f"| together | {modules.total()} | {sizes.total() >> 10} |")


if __name__ == "__main__":
    main()
