"""Code that runs inside the guest, and how the host finds it. See README.md."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

BUILT = Path(__file__).resolve().parent / "built"


@dataclass(frozen=True)
class Stub:
    """A flat image: its bytes, and the offsets of its global symbols."""

    code: bytes
    symbols: dict[str, int]


@functools.cache
def vdso() -> bytes:
    """The vDSO, an ELF file of at most a page; its clock page is expected behind it."""
    return (BUILT / "vdso.so").read_bytes()


@functools.cache
def load(name: str) -> Stub:
    """Read an image that guest_stubs/_build.py made; once, because a sandbox has no files."""
    symbols = json.loads((BUILT / f"{name}.json").read_text())
    return Stub((BUILT / f"{name}.bin").read_bytes(), symbols)
