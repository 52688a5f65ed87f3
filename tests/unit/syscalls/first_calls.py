"""Each system call, and each option of those that have many, as the first one of a sandbox.

    python -m tests.unit.syscalls.first_calls

prints a line of JSON: what differs between a process in which nothing was called before, whose
rooms are imported as calls need them, and one in which everything is imported. Then the registries
(variables of modules that hold rows) that are shorter where only the module that owns them is
imported: {variable: [row, ...]}.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import sentry
import sentry.boot.sandbox
from sentry.abi import fcntl, futex, keyctl, prctl, ptrace, unistd
from tests.nowhere import Asleep
from tests.world import World

Case = tuple[str, tuple[int | bytes | str, ...]]
"""The name of a call and its arguments; the text "buffer" is memory."""
FILE_SYSTEMS = b"cgroup2 devpts devtmpfs mqueue overlay proc ramfs sysfs tmpfs".split()


def numbers(module: object, *prefixes: str) -> list[int]:
    """The constants of a module of sentry.abi that begin so."""
    names = vars(module).items()
    return sorted({v for n, v in names if n.startswith(prefixes) and isinstance(v, int)})


def cases() -> Iterator[Case]:
    """What is called."""
    for name, number in vars(unistd).items():
        if isinstance(number, int):
            yield name, ()
    for option in numbers(prctl, "PR_"):
        yield "prctl", (option, 1)
    for option in numbers(prctl, "ARCH_"):
        yield "arch_prctl", (option, "buffer")
    for option in numbers(keyctl, "KEYCTL_"):
        yield "keyctl", (option,)
    for option in numbers(ptrace, "PTRACE_"):
        yield "ptrace", (option, 1)
    for option in numbers(fcntl, "F_"):
        yield "fcntl", (0, option)
    for option in numbers(futex, "FUTEX_"):
        yield "futex", ("buffer", option, 1)
    for kind in FILE_SYSTEMS:
        yield "mount", (b"none", b"/", kind, 0, 0)
        yield "fsopen", (kind, 0)


def outcome(case: Case) -> str:
    """What a call does, without the values that differ from run to run."""
    name, values = case
    with World() as world:
        program = world.init
        program.ok("open", b"/", 0)
        arguments = [program.buffer(4096) if v == "buffer" else v for v in values]
        try:
            call = program.begin(name, *arguments)  # type: ignore[arg-type]
            world.settle()
        except Asleep:
            return "sleeps"
        if program.task.dead:
            return f"ends: {program.task.group.exit_status}"
        if not call.done:
            return "sleeps"
        return f"error {-call.result}" if call.result < 0 else "works"


def in_child(do: Callable[[], Any]) -> Any:
    """What a function gives in a process that starts from here."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            told = do()
        except BaseException as error:
            told = f"fails: {error!r}"
        with os.fdopen(writing, "w") as end:
            json.dump(told, end)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as end:
        told = end.read()
    os.waitpid(child, 0)
    return json.loads(told)


def modules(package: Any) -> Iterator[str]:
    """All below a package, without what builds it."""
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not found.name.rpartition(".")[2].startswith("_build"):
            yield found.name
            if found.ispkg:
                yield from modules(importlib.import_module(found.name))


def registries(module: str) -> dict[str, list[str]]:
    """The rows of everything in a module that can have rows."""
    importlib.import_module(module)
    found = {}
    for name, value in vars(sys.modules[module]).items():
        if isinstance(value, dict | set | list) and not name.startswith("__"):
            found[name] = sorted({re.sub(" at 0x[0-9a-f]+", "", repr(row)) for row in value})
    return found


def main() -> None:
    """Nothing first, then everything."""
    called = list(cases())
    first = [in_child(lambda case=case: outcome(case)) for case in called]  # type: ignore[misc]
    names = list(modules(sentry))
    alone = [in_child(lambda name=name: registries(name)) for name in names]  # type: ignore[misc]
    for name in names:
        importlib.import_module(name)
    later = [outcome(case) for case in called]
    late: dict[str, list[str]] = {}
    for name, rows in zip(names, alone, strict=True):
        for variable, everything in registries(name).items():
            if more := [row for row in everything if row not in rows.get(variable, ())]:
                late[variable] = more
    differ = [
        f"{name}{values}: {a}, else {b}"
        for (name, values), a, b in zip(called, first, later, strict=True)
        if a != b
    ]
    print(json.dumps({"calls": len(called), "differ": differ, "late": late}))


if __name__ == "__main__":
    main()
