"""Modules of the Sentry that were compiled ahead, from the same source (ci/ahead): their loader.

All are in one library, which is mapped when the first of them is imported: before the lock-in, and
what is imported late needs no file then. Where there is none, or where a source is newer than it,
the modules are interpreted. In an installed tree no source is changed, and times say nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib._bootstrap import module_from_spec
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType

PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = f"{PACKAGES}/sentry/_ahead.{sys.implementation.cache_tag}"
"""No suffix of a module: it is none that could be imported."""
NAMES = f"{PACKAGES}/sentry/_ahead.modules"
GROUP = "sentry_ahead__mypyc"
INSTALLED = "installed"
DECODERS, REGISTRY = "sentry.syscalls.decode_", "sentry.syscalls.registry"


class Ahead:
    """A finder for `sys.meta_path`, and the loader of what it finds."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        self._start: Callable[[object], ModuleType] | None = None
        self._group: ModuleType | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """importlib.abc.MetaPathFinder."""
        if name not in self.names:
            return None
        spec = ModuleSpec(name, self, origin=source(name))  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """importlib.abc.Loader: the module, which has run."""
        if self._start is None:
            self._group = _extension(GROUP)
            self._start = _extension("sentry_ahead_start").start
        return self._start(getattr(self._group, f"init_{spec.name.replace('.', '___')}"))

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader: it has."""


def _extension(name: str) -> ModuleType:
    """One of the two modules that the library has itself."""
    spec = ModuleSpec(name, ExtensionFileLoader(name, LIBRARY), origin=LIBRARY)
    spec.has_location = True
    module = sys.modules[name] = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def source(name: str) -> str:
    """Where it was written: decoders of system calls are what the registry makes."""
    if name.startswith(DECODERS):
        name = REGISTRY
    return f"{PACKAGES}/{name.replace('.', '/')}.py"


def _constants() -> list[str]:
    """Where those stand that were put where they are used."""
    return [entry.path for entry in os.scandir(f"{PACKAGES}/sentry/abi") if entry.is_file()]


def compiled() -> frozenset[str]:
    """The modules that are taken from the library."""
    return frozenset().union(*(each.names for each in sys.meta_path if isinstance(each, Ahead)))


def install() -> None:
    """From now on, if there is a library that is as new as the sources."""
    try:
        built = os.stat(LIBRARY).st_mtime_ns
        with open(NAMES, encoding="ascii") as file:
            names = file.read().split("\n")
        if names[0] == INSTALLED:
            del names[0]
        else:
            read = (*map(source, names), *_constants())
            if any(os.stat(path).st_mtime_ns > built for path in read):
                return
    except OSError:
        return
    sys.meta_path.insert(0, Ahead(names))
