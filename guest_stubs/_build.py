"""Assemble the guest's code: `build(target)` writes guest_stubs/built/ below `target`.

Each image becomes `<name>.bin` (flat, linked at address 0) and `<name>.json` (its global symbols).
Needs gcc, ld, objcopy and nm at build time only.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent

IMAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "entry_ring3": ("entry.S", ("-DENTRY_RING3",)),
    "entry_ring0": ("entry.S", ()),
    "exceptions": ("exceptions.S", ()),
    "probe": ("probe.S", ()),
}
"""Image name: source file, compiler flags."""


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def assemble(source: Path, flags: tuple[str, ...] = ()) -> tuple[bytes, dict[str, int]]:
    """Assemble one file; give its flat code, linked at 0, and its global symbols."""
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        _run("gcc", "-c", "-I", HERE, *flags, source, "-o", tmp / "stub.o")
        _run("ld", "-Ttext=0", "-e", "0", "--build-id=none", tmp / "stub.o", "-o", tmp / "stub")
        _run("objcopy", "-O", "binary", "-j", ".text", tmp / "stub", tmp / "stub.bin")
        table = _run("nm", "-g", "--defined-only", tmp / "stub")
        symbols = {}
        for line in table.splitlines():
            value, _, name = line.split()
            if not name.startswith("_"):  # the linker's own: _end, __bss_start
                symbols[name] = int(value, 16)
        return (tmp / "stub.bin").read_bytes(), symbols


def _link_vdso(place: Path, warnings: Iterable[str]) -> Path:
    """The vDSO: an ELF of one page, without relocations."""
    options = ["-O2", "-fPIC", "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none"]
    options += ["-mgeneral-regs-only", "-fasynchronous-unwind-tables", *warnings]
    linking = ["-soname=linux-vdso.so.1", "--hash-style=both", "--build-id=sha1", "--eh-frame-hdr"]
    linking += ["-T", str(HERE / "vdso.lds"), "-z", "max-page-size=4096", "--strip-all"]
    joined = ["-Wl," + ",".join(linking)]
    source = HERE / "vdso.c"
    _run("gcc", *options, "-shared", "-nostdlib", *joined, source, "-o", place)
    return place


def build(target: Path, warnings: Iterable[str] = ()) -> list[Path]:
    """Build every image below `target`, C with these options; give the files made."""
    place = target / "guest_stubs" / "built"
    place.mkdir(parents=True, exist_ok=True)
    made = [_link_vdso(place / "vdso.so", warnings)]
    for name, (source, flags) in IMAGES.items():
        code, symbols = assemble(HERE / source, flags)
        binary, table = place / f"{name}.bin", place / f"{name}.json"
        binary.write_bytes(code)
        table.write_text(json.dumps(symbols, indent=1, sort_keys=True) + "\n")
        made += [binary, table]
    return made
