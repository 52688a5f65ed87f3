"""Code that runs inside the guest, and how the host finds it. See README.md."""

from __future__ import annotations

import functools
import os

from msgspec import Struct, json

BUILT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "built")


def _read(name: str) -> bytes:
    with open(os.path.join(BUILT, name), "rb") as file:
        return file.read()


class Stub(Struct, frozen=True):
    """A flat image: its bytes, and the offsets of its global symbols."""

    code: bytes
    symbols: dict[str, int]


@functools.cache
def vdso() -> bytes:
    """The vDSO, an ELF file of at most a page; its clock page is expected behind it."""
    return _read("vdso.so")


@functools.cache
def load(name: str) -> Stub:
    """Read an image that guest_stubs/_build.py made; once, because a sandbox has no files."""
    symbols = json.decode(_read(f"{name}.json"))
    return Stub(_read(f"{name}.bin"), symbols)
