"""Compile modules of the Sentry ahead, from their unchanged source: `python ci/ahead [TARGET]`.

mypyc makes C of them, gcc one library of that, sentry/_ahead.PYTHON, with a list of the modules
beside it. It takes two minutes, and says on standard error how far it is; what has not changed
since the last time is not compiled again (build/ahead/objects). runsc/launch/ahead.py uses it as
long as no source is newer.

TARGET is another folder than the source tree, laid out like it, that has what ci/build.py made and
becomes part of a wheel.
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

from constants import mirror
from later import lean
from literals import Literals
from modules import ROOT, modules
from mypyc.build import mypycify

PLACE = ROOT / "build" / "ahead"
HERE = Path(__file__).parent
INSTALLED = "installed"
"""What the list says first where no source will be changed: runsc/launch/ahead.py."""
FLAGS = ["-O1", "-g0", "-fPIC", "-DNDEBUG", "-w", "-fno-strict-overflow", "-fvisibility=hidden"]


def main(target: Path) -> int:
    """Build it there."""
    begun = time.monotonic()
    source, generated = PLACE / "source", PLACE / "c"
    mirror(ROOT, source)
    os.chdir(source)
    sources = [*modules(), *decoders(source, target)]
    say(f"mypyc makes C of {len(sources)} modules")
    library, *_ = mypycify(
        [f"--config-file={ROOT}/pyproject.toml", f"--cache-dir={PLACE}/types", *sources],
        multi_file=True, target_dir=str(generated), group_name="sentry_ahead",
    )  # fmt: skip
    include = [f"-I{folder}" for folder in (*library.include_dirs, sysconfig.get_path("include"))]
    flags = [*FLAGS, *include, f"-I{generated}"]
    first = generated / "first.h"
    first.write_bytes((HERE / "first.h").read_bytes())
    gcc(*flags, "-x", "c-header", first, "-o", f"{first}.gch")
    flags += ["-include", str(first)]
    how = repr([*flags, sys.version, subprocess.check_output(["gcc", "--version"])]).encode()
    for folder in (generated, *map(Path, library.include_dirs)):
        how += b"".join(path.read_bytes() for path in sorted(folder.rglob("*.h")))
    base = hashlib.sha256(how).digest()
    objects = PLACE / "objects"
    objects.mkdir(exist_ok=True)

    def compiled(source: str) -> Path:
        digest = hashlib.sha256(base + Path(source).read_bytes()).hexdigest()
        made = objects / f"{digest}.o"
        if not made.exists():
            gcc(*flags, "-c", source, "-o", f"{made}.new")
            Path(f"{made}.new").rename(made)
        return made

    later = PLACE / "later"
    later.mkdir(exist_ok=True)
    literals = Literals((generated / "__native_sentry_ahead.c").read_text())
    (later / "literals.c").write_text(literals.table())
    wanted, files = [str(HERE / "start.c"), str(later / "literals.c")], []
    for place in map(Path, library.sources):
        (later / place.name).write_text(literals.own(lean(place.read_text())))
        wanted.append(str(later / place.name))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for made in pool.map(compiled, wanted):
            files.append(made)
            if len(files) % 50 == 0 or len(files) == len(wanted):
                say(f"{len(files)} of {len(wanted)} files are compiled")
    for stale in set(objects.iterdir()) - set(files):
        stale.unlink()
    library_path = target / f"sentry/_ahead.{sys.implementation.cache_tag}"
    library_path.parent.mkdir(exist_ok=True)
    symbols = [] if target == ROOT else ["-s"]
    gcc("-shared", *symbols, *files, "-o", f"{library_path}.new")
    names = [path.removesuffix(".py").replace("/", ".") for path in sources]
    if target != ROOT:
        names.insert(0, INSTALLED)
    library_path.with_name("_ahead.modules").write_text("\n".join(names))
    Path(f"{library_path}.new").rename(library_path)
    print(f"{library_path} in {time.monotonic() - begun:.0f} s")
    return 0


def decoders(source: Path, built: Path) -> list[str]:
    """Write those of system calls into the mirror, which is imported, with what was built."""
    for library in (*built.glob("kvm/*.so"), *built.glob("sentry/platform/*.so")):
        place = source / library.relative_to(built)
        place.unlink(missing_ok=True)
        place.symlink_to(library)
    handlers = [
        name.removesuffix(".py").replace("/", ".")
        for name in modules() if name.startswith("sentry/syscalls/")
    ]  # fmt: skip
    written = subprocess.run(
        [sys.executable, HERE / "decoders.py", *handlers], check=True, stdout=subprocess.PIPE
    )
    return written.stdout.decode().split()


def say(text: str) -> None:
    """How far it is; ci/packages/make_wheels looks for these lines."""
    print(f"ahead: {text}", file=sys.stderr, flush=True)


def gcc(*words: object) -> None:
    """Raises: CalledProcessError, when it has said why."""
    subprocess.run(["gcc", *map(str, words)], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:]).resolve() if sys.argv[1:] else ROOT))
