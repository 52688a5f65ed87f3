"""Code for a process without files: what a sandbox may import late is read before it is locked in.

`KeptCode.of(package)` reads the compiled modules of a package that nobody has imported yet, and is
then the last finder of `sys.meta_path` (runsc/frozen.py). So a system call that hardly any program
makes costs a file that is read, but neither classes nor their memory, until the first program makes
it. What can be imported is fixed before the first guest instruction.

The compiled files are those of CPython's own cache, believed as CPython believes them: same magic
number, same size and time of the source. What is not there is compiled.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Container, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source
from types import ModuleType
from typing import Any

HEADER_SIZE = 16
"""Of a .pyc: magic number, flags (0: by time), time and size of the source. PEP 552."""


class KeptCode:
    """A finder and loader of modules in memory."""

    def __init__(self) -> None:
        self._modules: dict[str, tuple[bytes, bool]] = {}
        """Marshalled code by name; whether it is a package."""

    @classmethod
    def of(cls, package: str, without: Container[str] = ()) -> KeptCode:
        """All modules below this package, which is imported, that are not imported yet."""
        kept = cls()
        kept._read(package, sys.modules[package].__path__[0], without)
        return kept

    def _read(self, package: str, directory: str, without: Container[str]) -> None:
        compiled = os.path.dirname(cache_from_source(os.path.join(directory, "__init__.py")))
        tag = f".{sys.implementation.cache_tag}.pyc"
        for entry in os.scandir(directory):
            stem, dot, kind = entry.name.partition(".")
            name = f"{package}.{stem}"
            if dot and kind == "py" and not stem.startswith("_build"):
                if stem != "__init__" and name not in sys.modules and name not in without:
                    code = _code(entry.path, os.path.join(compiled, stem + tag), name)
                    self._modules[name] = code, False
            elif not dot and os.path.exists(init := os.path.join(entry.path, "__init__.py")):
                if name not in sys.modules:
                    self._modules[name] = _code(init, cache_from_source(init), name), True
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


def _code(source: str, compiled: str, name: str) -> bytes:
    """The marshalled code of one module."""
    try:
        with open(compiled, "rb", buffering=0) as file:
            data = file.readall()
    except FileNotFoundError:
        data = b""
    status = os.stat(source)
    stamp = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
    size = (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if data[:HEADER_SIZE] == MAGIC_NUMBER + bytes(4) + stamp + size:
        return data[HEADER_SIZE:]
    return marshal.dumps(SourceFileLoader(name, source).get_code(name))
