"""The quick way to our own modules."""

from __future__ import annotations

import importlib
import importlib._bootstrap_external
import importlib.util
import posixpath
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.launch import finder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that counts as ours, with a module and a package in it, all compiled."""
    root = tmp_path / "example_of_ours"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "inner" / "__init__.py").write_text("A = 1\n")
    (root / "leaf.py").write_text("from example_of_ours.inner import A\nB = A + 1\n")
    for source in root.rglob("*.py"):
        py_compile.compile(str(source))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(finder, "OWN", ("example_of_ours.",))
    monkeypatch.setattr(sys, "meta_path", [finder.OwnFinder(), *sys.meta_path])
    yield root
    for name in [name for name in sys.modules if name.startswith("example_of_ours")]:
        del sys.modules[name]


def test_modules_and_packages_look_as_cpythons_finder_makes_them(package: Path) -> None:
    leaf = importlib.import_module("example_of_ours.leaf")
    inner = importlib.import_module("example_of_ours.inner")

    assert (leaf.B, inner.A) == (2, 1)
    assert isinstance(leaf.__loader__, finder.OwnFinder)
    assert leaf.__file__ == str(package / "leaf.py")
    assert leaf.__package__ == "example_of_ours"
    assert list(inner.__path__) == [str(package / "inner")]
    assert inner.__file__ == str(package / "inner" / "__init__.py")
    assert inner.__package__ == "example_of_ours.inner"
    for module in (leaf, inner):
        assert module.__spec__ is not None
        assert module.__spec__.origin is module.__file__  # in memory once


def test_nobody_looks_twice_where_a_compiled_file_is(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython finds that out for each module that is said to have a place, a tenth of its import,
    and keeps it."""
    importlib.import_module("example_of_ours")
    monkeypatch.setattr(importlib._bootstrap_external, "_get_cached", None)
    leaf = importlib.import_module("example_of_ours.leaf")
    assert not hasattr(leaf, "__cached__")


def test_a_source_that_has_changed_is_left_to_cpython(package: Path) -> None:
    (package / "leaf.py").write_text("B = 33\n")

    leaf = importlib.import_module("example_of_ours.leaf")

    assert leaf.B == 33
    assert not isinstance(leaf.__loader__, finder.OwnFinder)


def test_a_compiled_file_of_another_python_is_left_to_cpython(package: Path) -> None:
    compiled = Path(importlib.util.cache_from_source(str(package / "leaf.py")))
    compiled.write_bytes(b"\0\0\r\n" + compiled.read_bytes()[4:])

    assert importlib.import_module("example_of_ours.leaf").B == 2


def test_what_is_not_there_is_an_import_error(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("example_of_ours.missing")


ANNOTATED = """
from __future__ import annotations
from os.path import join
def alone(a: int) -> str: ...
class Made:
    "What it is for."
    kept: int
    def method(self, a: int) -> str: ...
    @property
    def read(self) -> str: ...
    @staticmethod
    def static(a: int) -> str: ...
    @classmethod
    def of_class(cls, a: int) -> str: ...
class Told(Exception):
    "What it says."
join.__annotations__ = {"a": "int"}
"""


@pytest.mark.parametrize("is_read", [False, True])
def test_no_annotations_of_functions_and_no_docstrings_are_kept_where_nobody_reads_them(
    package: Path, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    if is_read:
        monkeypatch.setattr(finder, "DECLARED", "example_of_ours.l")
    monkeypatch.setattr(posixpath.join, "__annotations__", {})
    (package / "leaf.py").write_text(ANNOTATED)
    py_compile.compile(str(package / "leaf.py"))

    leaf = importlib.import_module("example_of_ours.leaf")

    made = leaf.Made
    for each in (leaf.alone, made.method, made.static, made.of_class):
        assert bool(each.__annotations__) is is_read
    assert bool(made.read.fget.__annotations__) is is_read
    assert made.__annotations__ == {"kept": "int"}
    assert bool(made.__doc__) is is_read
    assert leaf.Told.__doc__ == "What it says."
    assert posixpath.join.__annotations__ == {"a": "int"}


COMPILES = """
import builtins, sys
compiled = compile
def asked(*args, **options):
    assert "importlib" in sys._getframe(1).f_globals["__name__"], args[0]
    return compiled(*args, **options)
builtins.compile = asked
from benchmarks.imports import sentry
sentry()
import gofer.main, msgspec
from runsc.launch import early, gofer_start
from sentry.control.protocol import Reply, Request, decode
for kind in early.Handover, gofer_start.GoferHandover, Request:
    msgspec.msgpack.Decoder(kind)
assert decode(b"{}", Reply) == Reply()
assert msgspec.json.decode(b'{"op": "wait"}', type=Request).op == "wait"
try:
    msgspec.json.decode(b'{"op": 1}', type=Request)
except msgspec.ValidationError as error:
    print(error)
"""


@pytest.mark.kvm
def test_nothing_makes_the_classes_of_syntax_that_compile_needs() -> None:
    command = [sys.executable, "-c", COMPILES]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("Expected `str`, got `int` - at `$.op`\n", "")


UNUSED = """
import sys
from runsc.launch import finder
before = set(sys.modules)  # typing of 3.11 imports re
finder.install()
import msgspec
gone = {"numbers", "_decimal", "textwrap", "re", "selectors"}
assert not (sys.modules.keys() - before) & {*finder.UNUSED, *gone}
import socket, selectors
assert selectors.DefaultSelector().get_map() is not None
from typing import Annotated
word = Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]
assert msgspec.json.decode(b'"abc"', type=word) == "abc"
try:
    msgspec.json.decode(b'"a1"', type=word)
except msgspec.ValidationError:
    pass
else:
    raise AssertionError("a pattern that is none")
class Thing(msgspec.Struct):
    a: int
    b: float | None = None
for form in (msgspec.json, msgspec.msgpack):
    assert form.decode(form.encode(Thing(1, 0.5)), type=Thing) == Thing(1, 0.5)
import uuid, decimal
import msgspec.inspect, msgspec.toml
assert str(uuid.UUID(int=0))[:4] == "0000" and decimal.Decimal("1.5") * 2 == 3
assert msgspec.inspect.type_info(int) == msgspec.inspect.IntType()
assert msgspec.toml.decode is not None
"""


def test_msgspec_comes_without_what_nothing_here_uses() -> None:
    subprocess.run([sys.executable, "-c", UNUSED], check=True)
