"""Compile modules of the Sentry ahead, from their unchanged source: `python ci/ahead`.

mypyc makes C of them, gcc one library of that, sentry/_ahead.PYTHON, with a list of the modules
beside it. It takes two minutes; what has not changed since the last time is not compiled again
(build/ahead/objects). runsc/launch/ahead.py uses it as long as no source is newer.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modules import ROOT, modules
from mypyc.build import mypycify

PLACE = ROOT / "build" / "ahead"
HERE = Path(__file__).parent
FLAGS = ["-O1", "-g0", "-fPIC", "-DNDEBUG", "-w", "-fno-strict-overflow", "-fvisibility=hidden"]


def main() -> int:
    """Build it in place."""
    os.chdir(ROOT)
    begun = time.monotonic()
    generated = PLACE / "c"
    library, *_ = mypycify(
        ["--config-file", "pyproject.toml", "--cache-dir", str(PLACE / "types"), *modules()],
        multi_file=True, target_dir=str(generated), group_name="sentry_ahead",
    )  # fmt: skip
    include = [f"-I{folder}" for folder in (*library.include_dirs, sysconfig.get_path("include"))]
    flags = [*FLAGS, *include, f"-I{generated}"]
    first = generated / "first.h"
    first.write_bytes((HERE / "first.h").read_bytes())
    gcc(*flags, "-x", "c-header", first, "-o", f"{first}.gch")
    flags += ["-include", str(first)]
    headers = b"".join(path.read_bytes() for path in sorted(generated.glob("*.h")))
    base = hashlib.sha256(headers + repr(flags).encode() + sys.version.encode()).digest()
    objects = PLACE / "objects"
    objects.mkdir(exist_ok=True)

    def compiled(source: str) -> Path:
        digest = hashlib.sha256(base + Path(source).read_bytes()).hexdigest()
        made = objects / f"{digest}.o"
        if not made.exists():
            gcc(*flags, "-c", source, "-o", f"{made}.new")
            Path(f"{made}.new").rename(made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(compiled, [*library.sources, str(HERE / "start.c")]))
    for stale in set(objects.iterdir()) - set(files):
        stale.unlink()
    target = ROOT / f"sentry/_ahead.{sys.implementation.cache_tag}"
    gcc("-shared", *files, "-o", f"{target}.new")
    names = (path.removesuffix(".py").replace("/", ".") for path in modules())
    target.with_name("_ahead.modules").write_text("\n".join(names))
    Path(f"{target}.new").rename(target)
    print(f"{target} in {time.monotonic() - begun:.0f} s")
    return 0


def gcc(*words: object) -> None:
    """Raises: CalledProcessError, when it has said why."""
    subprocess.run(["gcc", *map(str, words)], check=True)


if __name__ == "__main__":
    sys.exit(main())
