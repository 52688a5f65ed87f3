"""Finds the modules of our own packages in half the time that CPython takes.

A sandbox's start imports 280 of them, and the finder of CPython makes fourteen system calls for
each. This one looks where a compiled module must be, and believes it as CPython does: same magic
number, same time and size of the source (PEP 552). Whatever else there is (no compiled file, one
that is old, an extension) is left to CPython's finder, which comes after it.
"""

from __future__ import annotations

import importlib
import marshal
import os
import sys
import typing
from collections.abc import Sequence
from importlib._bootstrap_external import MAGIC_NUMBER, cache_from_source
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from runsc.launch import ahead

OWN = ("sentry.", "runsc.", "gofer.", "kvm.")
DECLARED = "sentry.syscalls."
"""Where annotations of functions mean something: calls are decoded by them."""
HEADER_SIZE = 16
"""Of a .pyc: magic number, flags (0: by time), time and size of the source."""
TAIL = f".{sys.implementation.cache_tag}.pyc"
"""What a compiled file is called besides its module's name."""
_compiled: dict[str, str] = {}
"""Where the compiled modules of a directory are."""


def compiled_place(directory: str) -> str:
    """The directory of those of DIRECTORY's modules."""
    where = _compiled.get(directory)
    if where is None:
        where = os.path.dirname(cache_from_source(f"{directory}/x.py"))
        _compiled[directory] = where
    return where


def compiled_file(directory: str, stem: str) -> str:
    """Where that of DIRECTORY/STEM.py has to be."""
    return f"{compiled_place(directory)}/{stem}{TAIL}"


def compiled_code(directory: str, stem: str) -> bytes | None:
    """The marshalled code of DIRECTORY/STEM.py, if there is a compiled file as new as it."""
    try:
        fd = os.open(compiled_file(directory, stem), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, os.fstat(fd).st_size)
    except OSError:  # it is empty
        return None
    finally:
        os.close(fd)
    try:
        status = os.stat(f"{directory}/{stem}.py")
    except OSError:
        return None
    stamp = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
    size = (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    head = MAGIC_NUMBER + bytes(4) + stamp + size
    return data[HEADER_SIZE:] if data.startswith(head) else None


class OwnFinder:
    """The first finder of `sys.meta_path`, and the loader of what it finds."""

    def __init__(self) -> None:
        self._found: dict[str, bytes] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """importlib.abc.MetaPathFinder."""
        if not path or not name.startswith(OWN):
            return None
        directory, stem = path[0], name.rpartition(".")[2]
        code = compiled_code(directory, stem)
        if code is not None:
            spec = ModuleSpec(name, self, origin=f"{directory}/{stem}.py")  # type: ignore[arg-type]
        else:
            directory = f"{directory}/{stem}"
            code = compiled_code(directory, "__init__")
            if code is None:
                return None
            origin = f"{directory}/__init__.py"
            spec = ModuleSpec(name, self, origin=origin)  # type: ignore[arg-type]
            spec.submodule_search_locations = [directory]
        self._found[name] = code
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """importlib.abc.Loader: a module as usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """importlib.abc.Loader."""
        name, names, spec = module.__name__, module.__dict__, module.__spec__
        code: Any = marshal.loads(self._found.pop(name))
        assert spec is not None
        if code.co_filename == spec.origin:
            spec.origin = code.co_filename  # once in memory
        names["__file__"] = spec.origin
        exec(code, names)
        names["__doc__"] = None
        if not name.startswith(DECLARED):
            forget_annotations(name, names)


def forget_annotations(module: str, names: dict[str, Any]) -> None:
    """Those of its functions, and of its classes' ones, which nobody reads: they are 0.4 MiB of a
    Sentry; and what its classes are for, 0.15, but for exceptions, which tell it. What a class says
    of its attributes stays. Most names are numbers, so kinds are looked at first, and without a
    call."""
    for each in names.values():
        kind = type(each)
        if kind is FunctionType:
            if each.__module__ == module:
                each.__annotations__ = None
        elif kind is not int and isinstance(each, type) and each.__module__ == module:
            if not issubclass(each, BaseException):
                each.__doc__ = None
            for inner in vars(each).values():
                kind = type(inner)
                found = (
                    inner if kind is FunctionType
                    else inner.fget if kind is property
                    else inner.__func__ if kind is classmethod or kind is staticmethod
                    else None
                )  # fmt: skip
                if type(found) is FunctionType and found.__module__ == module:
                    found.__annotations__ = None  # type: ignore[assignment]


UNUSED = (
    "decimal", "uuid", "msgspec._json_schema", "msgspec.inspect", "msgspec.toml", "msgspec.yaml",
)  # fmt: skip
"""What msgspec imports and nothing here has to do with: half of its time, and 0.5 MiB."""


class Nothing(type):
    """A class that nothing is of; so is whatever is asked of it."""

    def __getattr__(cls, name: str) -> Nothing:
        return _nothing(name)


class Unused(ModuleType):
    """Stands for a module as long as another one is being imported."""

    def __getattr__(self, name: str) -> Nothing:
        return _nothing(name)


def _expression(text: str) -> Any:
    """re.compile, which msgspec takes for fields with a pattern: some of the command line's. The
    module is 0.3 MiB of every process."""
    import re  # noqa: PLC0415

    return re.compile(text)


def _nothing(name: str) -> Nothing:
    if name.startswith("__"):
        raise AttributeError(name)
    return Nothing(name, (), {})


def import_msgspec() -> None:
    """Without those."""
    expressions = ModuleType("re")
    vars(expressions)["compile"] = _expression
    _import("msgspec", [expressions, *map(Unused, UNUSED)])


def _import(name: str, instead: list[ModuleType]) -> None:
    """With these in the places of others, which whoever imports them later gets as they are."""
    if name in sys.modules:
        return
    made = {each.__name__: each for each in instead if each.__name__ not in sys.modules}
    sys.modules.update(made)
    try:
        importlib.import_module(name)
    finally:
        for each in made:
            del sys.modules[each]


def install() -> None:
    """From now on.

    The first call of compile() makes 124 classes of syntax, 0.25 MiB. So nothing calls it: exec()
    takes text, and eval() does, to which typing gives what it has compiled of an annotation.
    msgspec looks for typing_extensions, which it needs for older Pythons than ours: where that is
    installed it costs a start 12 ms, so there is none from now on, either.
    """
    sys.meta_path.insert(0, OwnFinder())
    ahead.install()
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    vars(typing)["compile"] = lambda text, *_: text
    import_msgspec()
    _import("socket", [Unused("selectors")])  # for socket.sendfile, which nothing here uses
