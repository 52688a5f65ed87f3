"""When modules that were compiled ahead are taken; that they work: tests/full/test_ahead.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runsc.launch import ahead


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a module, and a library that says that it has it."""
    package = tmp_path / "sentry"
    package.mkdir()
    (package / "module.py").touch()
    (package / "abi").mkdir()
    (package / "abi/fcntl.py").touch()
    (package / "_ahead.modules").write_text("sentry.module")
    (package / "_ahead.so").touch()
    monkeypatch.setattr(ahead, "PACKAGES", str(tmp_path))
    monkeypatch.setattr(ahead, "LIBRARY", str(package / "_ahead.so"))
    monkeypatch.setattr(ahead, "NAMES", str(package / "_ahead.modules"))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return package


def finds() -> bool:
    """Whether the module would be taken from it."""
    ahead.install()
    finder = sys.meta_path[0]
    return isinstance(finder, ahead.Ahead) and finder.find_spec("sentry.module") is not None


def test_what_was_compiled_is_taken(library: Path) -> None:
    assert finds()
    spec = sys.meta_path[0].find_spec("sentry.module", None)
    assert spec is not None and spec.origin == str(library / "module.py")
    assert sys.meta_path[0].find_spec("sentry.other", None) is None


@pytest.mark.parametrize("source", ["module.py", "abi/fcntl.py"])
def test_a_source_that_is_newer_turns_all_off(library: Path, source: str) -> None:
    built = os.stat(library / "_ahead.so").st_mtime_ns
    os.utime(library / source, ns=(built + 1, built + 1))

    assert not finds()


def test_times_say_nothing_of_what_is_installed(library: Path) -> None:
    (library / "_ahead.modules").write_text("installed\nsentry.module")
    built = os.stat(library / "_ahead.so").st_mtime_ns
    os.utime(library / "module.py", ns=(built + 1, built + 1))

    assert finds()
    assert ahead.compiled() == {"sentry.module"}


def test_decoders_are_as_old_as_what_makes_them(library: Path) -> None:
    (library / "syscalls").mkdir()
    registry = library / "syscalls/registry.py"
    registry.touch()
    os.utime(registry, ns=(0, 0))
    (library / "_ahead.modules").write_text("sentry.module\nsentry.syscalls.decode_files_io")
    assert finds()
    assert "sentry.syscalls.decode_files_io" in ahead.compiled()
    sys.meta_path.pop(0)

    built = os.stat(library / "_ahead.so").st_mtime_ns
    os.utime(registry, ns=(built + 1, built + 1))
    assert not finds()


@pytest.mark.parametrize("missing", ["_ahead.so", "_ahead.modules", "module.py"])
def test_nothing_is_compiled_where_a_part_is_missing(library: Path, missing: str) -> None:
    (library / missing).unlink()

    assert not finds()
