"""Write the decoders of system calls as modules: `python decoders.py MODULE…`, in the mirror.

A sandbox that is interpreted makes each at its first call (sentry/syscalls/registry.py). These have
the same lines, for the handlers that are compiled, and belong to their modules.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from sentry.abi.layout import Layout
from sentry.syscalls import args, registry
from sentry.syscalls.registry import TABLE, Declaration, decoder, decoders_of, signature

HEAD = '''"""Decoders of {module}."""
# mypy: disable-error-code="func-returns-value,no-any-return"

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sentry.kernel.task import Task
from sentry.syscalls.args import StructOut, UserIn, UserOut, UserPath, check_flags, reader
from sentry.syscalls.registry import counted, eagerly, recounted
from sentry.wait.again import NotNow
from sentry.wait.eager import eager
'''


def text(module: str, declarations: list[Declaration], layouts: dict[str, str]) -> str:
    """One module. `layouts`: by its name in C, the module and the name of each in sentry.abi."""
    head, made, functions = HEAD.format(module=module), "", ""
    for name in sorted({each.handler.__name__ for each in declarations}):
        head += f"from {module} import {name}\n"
    for key in sorted({key for each in declarations for key in _names(each)}):
        kind, _, name = key.partition("_")
        if kind in {"in", "layout"} and name in layouts:
            where, what = layouts[name].rsplit(".", 1)
            head += f"from {where} import {what}\n"
            made += f"{key}: Final = {f'reader({what})' if kind == 'in' else what}\n"
        elif not hasattr(args, key):
            raise SystemExit(f"{module}: nothing is known of {key}, which a decoder uses")
    for each in declarations:
        sleeps = signature(each.number, each.handler)[0]
        lines = decoder(
            each.name, each.handler.__name__, each.args, each.order, each.counts, sleeps=sleeps
        )
        functions += "\n\n" + "\n".join(lines) + "\n"
    return head + made + functions


def _names(declaration: Declaration) -> Iterator[str]:
    for _, mark in declaration.args:
        yield from mark.names or {}


def _layouts() -> dict[str, str]:
    found = {}
    for path in sorted(Path("sentry/abi").glob("*.py")):
        name = f"sentry.abi.{path.stem}"
        if path.stem != "__init__":
            for key, value in vars(importlib.import_module(name)).items():
                if isinstance(value, Layout):
                    found[value.name] = f"{name}.{key}"
    return found


def main(modules: list[str]) -> None:
    """Write the modules, and print their paths."""
    layouts = _layouts()
    for module in modules:
        importlib.import_module(module)
        there = [each for each in TABLE if each is not None and each.handler.__module__ == module]
        if not there:
            continue
        path = Path(decoders_of(module).replace(".", "/") + ".py")
        new = text(module, there, layouts)
        if not path.exists() or path.read_text() != new:
            path.write_text(new)
        print(path)


if __name__ == "__main__":
    assert registry.__file__.startswith(str(Path.cwd()))
    main(sys.argv[1:])
