"""Compile the cffi modules and the guest stubs, in place or into another folder.

Used by the wheel hook (hatch_build.py) and by developers: `python ci/build.py [TARGET]`, and with
`--sanitize TARGET` by tests/full/test_sanitizers.py (AddressSanitizer, UndefinedBehaviorSanitizer).
`<room>/_build*.py` describes what to build: `ffibuilder` names a cffi module, `build(target)`
makes anything else. What has not changed since it was last built here is left alone.

Our C is compiled with STRICT; what cffi generates begins with `generated_below.h`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("runsc", "kvm", "sentry", "gofer", "guest_stubs")
SOURCES = {".py", ".c", ".h", ".S"}
STRICT = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SANITIZE += ("-fno-omit-frame-pointer",)
PACKED = ("-g0", f"-ffile-prefix-map={ROOT}=.")
"""What goes into a package does not say where it was built."""


def builders() -> list[Path]:
    """All module descriptions, in a stable order."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("_build*.py"))


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fingerprint(path: Path) -> str:
    """Of the description, the C and assembly sources of its room and the guest's headers."""
    near = {source for source in path.parent.rglob("*") if source.suffix in SOURCES - {".py"}}
    near |= {path, *(ROOT / "guest_stubs").glob("*.[hS]"), *(ROOT / "ci").glob("*.h")}
    near.add(Path(__file__))
    digest = hashlib.sha256(sys.version.encode())
    for source in sorted(near):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _set_flags(sanitize: bool, packed: bool) -> None:
    """For the compiler that setuptools calls. Python's own headers are none of ours."""
    flags = ["-g", "-fno-strict-overflow", *STRICT, f"-I{ROOT / 'ci'}"]
    flags += ["-isystem", sysconfig.get_path("include")]
    if packed:
        flags += PACKED
        os.environ["LDFLAGS"] = "-s"
    if sanitize:
        flags += SANITIZE
        os.environ["LDFLAGS"] = " ".join(SANITIZE)
    os.environ["CFLAGS"] = " ".join(flags)


def _compile(module: ModuleType, target: Path) -> Path:
    """A cffi module, as an extension of the stable ABI: one file for every Python 3."""
    with tempfile.TemporaryDirectory() as tmp:
        built = Path(module.ffibuilder.compile(tmpdir=tmp))
        name = built.name.split(".")[0]
        place = target / built.relative_to(tmp).parent / f"{name}.abi3.so"
        place.parent.mkdir(parents=True, exist_ok=True)
        for stale in place.parent.glob(f"{name}.cpython-*.so"):
            stale.unlink()
        # a running process may have the old one mapped: a new file, not new bytes in it
        fresh = place.with_suffix(".new")
        shutil.copy(built, fresh)
        fresh.replace(place)
        return place


def run(target: Path, only_changed: bool = False, sanitize: bool = False) -> list[Path]:
    """Build everything below `target` (laid out like the source tree); give the files made."""
    sys.path.insert(0, str(ROOT))
    _set_flags(sanitize, target != ROOT and not sanitize)
    made: list[Path] = []
    stamps = target / "build" / "stamps"
    for path in builders():
        stamp = stamps / str(path.relative_to(ROOT)).replace("/", "-")
        print_of = _fingerprint(path)
        if only_changed and stamp.exists():
            known, *files = stamp.read_text().split("\n")
            if known == print_of and all(Path(file).exists() for file in files):
                continue
        module = _load(path)
        if hasattr(module, "build"):
            files_of = module.build(target, STRICT)
        else:
            files_of = [_compile(module, target)]
        made += files_of
        if only_changed:
            stamps.mkdir(parents=True, exist_ok=True)
            stamp.write_text("\n".join([print_of, *map(str, files_of)]))
    sys.path.remove(str(ROOT))
    return made


def compile_ahead(target: Path) -> None:
    """Modules of the Sentry, where `run` has built: ci/ahead. Raises: CalledProcessError."""
    subprocess.run([sys.executable, ROOT / "ci" / "ahead", target], check=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Compile the cffi modules and the guest stubs.")
    parser.add_argument("target", nargs="?", type=Path, help="another folder than the source tree")
    parser.add_argument("--sanitize", action="store_true", help="with ASan and UBSan")
    parser.add_argument("--ahead", action="store_true", help="and what ci/ahead does")
    options = parser.parse_args()
    if options.sanitize and not options.target:
        parser.error("sanitized modules go into a folder of their own")
    in_place = options.target is None
    for file in run((options.target or ROOT).resolve(), in_place, options.sanitize):
        print(file)
    if options.ahead:
        compile_ahead(options.target or ROOT)


if __name__ == "__main__":
    _main()
