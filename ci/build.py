"""Compile the cffi modules and the guest stubs, in place or into another folder.

Used by the wheel hook (hatch_build.py) and by developers: `python ci/build.py`.
Every native module has a description `<room>/_build.py` whose `ffibuilder` names the module.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def builders() -> list[Path]:
    """All module descriptions, in a stable order."""
    return sorted(p for room in ("runsc", "kvm", "sentry", "gofer", "guest_stubs") for p in (ROOT / room).rglob("_build*.py"))


def run(target: Path) -> list[Path]:
    """Build everything below `target` (laid out like the source tree); give the files made."""
    made: list[Path] = []
    for path in builders():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "build"):  # something that is not a cffi module: the guest stubs
            made += module.build(target)
            continue
        with tempfile.TemporaryDirectory() as tmp:
            built = Path(module.ffibuilder.compile(tmpdir=tmp))
            place = target / built.relative_to(tmp)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(built, place)
            made.append(place)
    return made


if __name__ == "__main__":
    for file in run(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(file)
