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
from importlib._bootstrap_external import MAGIC_NUMBER
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from runsc import host
from runsc.launch.finder import HEADER_SIZE, TAIL, compiled_place

SIZE_BITS = 32
Code = bytes | int
"""Marshalled, or where a compiled file is mapped, times 2**SIZE_BITS, and how long it is."""


class KeptCode:
    """A finder and loader of modules in memory."""

    def __init__(self) -> None:
        self._modules: dict[str, Code] = {}
        self._packages: set[str] = set()
        """Those of them that are."""

    @classmethod
    def of(cls, package: str, without: Container[str] = ()) -> KeptCode:
        """All modules below this package, which is imported, that are not imported yet."""
        kept = cls()
        kept._read(package, sys.modules[package].__path__[0], without)
        return kept

    def add(self, package: str, directory: str) -> None:
        """One that nobody has imported, and what is in it, there."""
        if package not in sys.modules:
            self._read(package, directory, ())

    def add_module(self, name: str, directory: str) -> None:
        """One by itself that nobody has imported, there."""
        if name not in sys.modules:
            self._keep(directory, {name: name})

    def _read(self, package: str, directory: str, without: Container[str]) -> None:
        stems, inner = [], []
        for entry in os.scandir(directory):
            stem, dot, kind = entry.name.partition(".")
            if kind == "py" and not stem.startswith("_build"):
                stems.append(stem)
            elif not dot and stem != "__pycache__" and entry.is_dir():
                inner.append(stem)
        if "__init__" not in stems:  # no package
            return
        names = {package if stem == "__init__" else f"{package}.{stem}": stem for stem in stems}
        late = {n: stem for n, stem in names.items() if n not in sys.modules and n not in without}
        self._keep(directory, late)
        for stem in inner:
            if f"{package}.{stem}" not in without:
                self._read(f"{package}.{stem}", f"{directory}/{stem}", without)

    def _keep(self, directory: str, late: dict[str, str]) -> None:
        """These modules, by their names, that lie there under other ones."""
        place, found = compiled_place(directory), list(late.values())
        codes = host.map_compiled(directory, place, found, TAIL, MAGIC_NUMBER)
        for (name, stem), (at, size) in zip(late.items(), codes, strict=True):
            source = f"{directory}/{stem}.py"
            self._modules[name] = at << SIZE_BITS | size if at else _compiled(source, name)
            if stem == "__init__":
                self._packages.add(name)

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
        return ModuleSpec(name, self, is_package=name in self._packages)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """importlib.abc.Loader: a module as usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader."""
        found = self._modules[module.__name__]
        code: Any
        if isinstance(found, bytes):
            code = marshal.loads(found)
        else:
            at, size = divmod(found, 1 << SIZE_BITS)
            code = marshal.loads(host.mapped(at, size)[HEADER_SIZE:])
            host.read_through(at, size)
        exec(code, module.__dict__)


def _compiled(source: str, name: str) -> bytes:
    """The marshalled code of a module that has no compiled file."""
    return marshal.dumps(SourceFileLoader(name, source).get_code(name))
