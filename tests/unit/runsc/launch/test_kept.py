"""What a locked-in Sentry may import late."""

from __future__ import annotations

import importlib
import py_compile
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.launch.kept import KeptCode

EVERYTHING = """
import sys
from runsc.launch import boot, programs
from runsc.launch.frozen import freeze_imports
programs.sentry("kvm")
kept = programs.late()
names = sorted(kept.names)
freeze_imports(kept)
loaded = set(sys.modules)
import importlib
for name in names:
    importlib.import_module(name)
print(len(names), *sorted(set(sys.modules) - loaded - set(names)))
"""


@pytest.mark.kvm
def test_everything_the_sentry_imports_late_needs_no_file() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    number, *others = done.stdout.split()
    assert int(number) > 100
    assert others == []


COMPLAINT = """
import sys
from runsc.launch import boot, isolation
assert "traceback" not in sys.modules
sys.path.clear()
isolation._complain(ValueError("why"))
"""


def test_what_goes_wrong_in_an_empty_root_is_told() -> None:
    """Between `leave_root` and `freeze_imports` of each process but the Sentry much is done."""
    done = subprocess.run(
        [sys.executable, "-c", COMPLAINT], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "ValueError: why\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An imported package, kept_example, that has a module and a package of one module."""
    root = tmp_path / "kept_example"
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "inner" / "__init__.py").write_text("A = 1\n")
    (root / "inner" / "leaf.py").write_text("from kept_example.inner import A\nB = A + 1\n")
    (root / "old.py").write_text("C = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("kept_example")
    yield root
    for name in [name for name in sys.modules if name.startswith("kept_example")]:
        del sys.modules[name]


def test_kept_modules_are_imported_after_their_files_are_gone(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "core").touch()  # of a program that has crashed there
    kept = KeptCode.of("kept_example")
    for path in sorted(package.rglob("*.py")):
        path.unlink()
    monkeypatch.setattr(sys, "meta_path", [kept])

    assert importlib.import_module("kept_example.inner.leaf").B == 2
    with pytest.raises(ImportError):
        importlib.import_module("kept_example.missing")


def test_a_compiled_file_older_than_its_source_is_not_kept(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    importlib.import_module("kept_example.old")
    del sys.modules["kept_example.old"]
    (package / "old.py").write_text("C = 22\n")

    kept = KeptCode.of("kept_example")
    monkeypatch.setattr(sys, "meta_path", [kept])

    assert importlib.import_module("kept_example.old").C == 22


@pytest.mark.parametrize("at", [0, 4], ids=["another Python's", "by the hash of its source"])
def test_a_compiled_file_that_says_nothing_of_its_source_is_not_kept(
    package: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    source = package / "old.py"
    source.write_text("C = 22\n")
    compiled = Path(py_compile.compile(str(source)))
    source.write_text("C = 33\n")
    status = source.stat()
    data = compiled.read_bytes()
    stamp = struct.pack("<II", int(status.st_mtime), status.st_size)
    compiled.write_bytes(data[:at] + b"\3\0\0\0" + (data[:8] + stamp)[at + 4 :] + data[16:])

    kept = KeptCode.of("kept_example")
    monkeypatch.setattr(sys, "meta_path", [kept])

    assert importlib.import_module("kept_example.old").C == 33


def test_compiled_file_takes_no_memory_before_its_module_is_imported_and_none_after(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = py_compile.compile(str(package / "old.py"))
    kept = KeptCode.of("kept_example")
    monkeypatch.setattr(sys, "meta_path", [kept])

    assert _in_memory(compiled) == ["0 kB"]
    assert importlib.import_module("kept_example.old").C == 1
    assert _in_memory(compiled) == ["0 kB"]


def _in_memory(file: str) -> list[str]:
    """How much of each mapping of it is there."""
    mappings = Path("/proc/self/smaps").read_text().split(f" {file}\n")[1:]
    return [mapping.split("Rss:", 1)[1].split("\n")[0].strip() for mapping in mappings]


def test_what_is_never_imported_late_is_not_kept(package: Path) -> None:
    everything = {"kept_example.inner", "kept_example.inner.leaf", "kept_example.old"}
    assert set(KeptCode.of("kept_example").names) == everything
    assert KeptCode.of("kept_example", {"kept_example.inner"}).names == ["kept_example.old"]
    assert KeptCode.of("kept_example", everything).names == []
