"""Write `.cdef.h` and `.pyi` beside every cffi module, from the C code that they describe.

The cdef says to cffi what Python sees of the C code, the stub says it to mypy. `--check` says
whether the files in the tree are what would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from border.modules import MODULES, Module
from border.reading import read_files, structs
from border.writing import cdef, stub, visible

ROOT = Path(__file__).resolve().parent.parent


def texts(module: Module) -> dict[Path, str]:
    """The two files of a module."""
    own = read_files([ROOT / name for name in module.visible])
    own.structs.update(structs(module.borrowed))
    own.constants.extend(module.names.split())
    beside = "\n".join((ROOT / name).read_text() for name in module.structs)
    found = visible(own, structs(beside))
    place = ROOT / module.path
    return {
        place.with_suffix(".cdef.h"): cdef(found),
        place.with_suffix(".pyi"): stub(found),
    }


def main() -> int:
    """Write them, or say which are not as they would be written."""
    check = "--check" in sys.argv
    wanted = {path: text for module in MODULES for path, text in texts(module).items()}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    for path in stale:
        print(path.relative_to(ROOT))
        if not check:
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
