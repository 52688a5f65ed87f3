"""Code for a process without files: what a sandbox may import late is mapped before the lock-in.

`KeptCode.of(package)` maps the compiled modules of a package that nobody has imported yet, and is
then the last finder of `sys.meta_path` (`frozen`). So a system call that hardly any program
makes costs a file that is opened, but no memory until the first program makes it. What can be
imported is fixed before the first guest instruction.

The compiled files are those of CPython's own cache (`finder`); what is missing is compiled.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Container, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from types import ModuleType
from typing import Any

from runsc import host
from runsc.launch.finder import HEADER_SIZE, compiled_file

Code = bytes | memoryview
"""Marshalled."""


class KeptCode:
    """A finder and loader of modules in memory."""

    def __init__(self) -> None:
        self._modules: dict[str, tuple[Code, bool]] = {}
        """Marshalled code by name; whether it is a package."""

    @classmethod
    def of(cls, package: str, without: Container[str] = ()) -> KeptCode:
        """All modules below this package, which is imported, that are not imported yet."""
        kept = cls()
        kept._read(package, sys.modules[package].__path__[0], without)
        return kept

    def _read(self, package: str, directory: str, without: Container[str]) -> None:
        for entry in os.scandir(directory):
            stem, dot, kind = entry.name.partition(".")
            name = f"{package}.{stem}"
            if dot and kind == "py" and not stem.startswith("_build"):
                if stem != "__init__" and name not in sys.modules and name not in without:
                    self._modules[name] = _code(directory, stem, name), False
            elif not dot and name not in without and os.path.exists(f"{entry.path}/__init__.py"):
                if name not in sys.modules:
                    self._modules[name] = _code(entry.path, "__init__", name), True
                self._read(name, entry.path, without)

    @property
    def names(self) -> list[str]:
        """Of all kept modules."""
        return list(self._modules)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """importlib.abc.MetaPathFinder."""
        if name not in self._modules:
            return None
        return ModuleSpec(name, self, is_package=self._modules[name][1])  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """importlib.abc.Loader: a module as usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader."""
        code: Any = marshal.loads(self._modules[module.__name__][0])
        exec(code, module.__dict__)


def _code(directory: str, stem: str, name: str) -> Code:
    """The marshalled code of one module: of a compiled file nothing is in memory before somebody
    imports it."""
    source = f"{directory}/{stem}.py"
    mapped = host.map_compiled(compiled_file(directory, stem), source, MAGIC_NUMBER)
    if mapped is not None:
        return mapped[HEADER_SIZE:]
    return marshal.dumps(SourceFileLoader(name, source).get_code(name))
