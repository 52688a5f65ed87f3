"""The auxiliary vector: getauxval(3), fs/binfmt_elf.c: create_elf_tables().

AT_RSEQ_* is left out: rseq(2) answers ENOSYS.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from sentry.abi.auxv import (
    AT_BASE,
    AT_CLKTCK,
    AT_EGID,
    AT_ENTRY,
    AT_EUID,
    AT_EXECFN,
    AT_FLAGS,
    AT_GID,
    AT_HWCAP,
    AT_HWCAP2,
    AT_MINSIGSTKSZ,
    AT_NULL,
    AT_PAGESZ,
    AT_PHDR,
    AT_PHENT,
    AT_PHNUM,
    AT_PLATFORM,
    AT_RANDOM,
    AT_SECURE,
    AT_SYSINFO_EHDR,
    AT_UID,
)
from sentry.abi.elf import PHDR
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.kernel.machine import Machine

CLOCK_TICKS = 100
"""USER_HZ."""


class Start(Struct, frozen=True):
    """What the program is told of itself."""

    entry: int
    phdr: int
    phnum: int
    base: int
    """Where the interpreter was loaded, 0 without one."""
    vdso: int = 0


def auxiliary_vector(
    machine: Machine,
    start: Start,
    creds: Credentials,
    secure: bool,
    strings: tuple[int, int, int],
) -> list[tuple[int, int]]:
    """The pairs in Linux's order; `strings`: addresses of 16 random bytes, file name, platform."""
    random, file_name, platform = strings
    vector = [(AT_SYSINFO_EHDR, start.vdso)] if start.vdso else []
    return [
        *vector,
        (AT_MINSIGSTKSZ, machine.min_signal_stack),
        (AT_HWCAP, machine.hwcap),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, CLOCK_TICKS),
        (AT_PHDR, start.phdr),
        (AT_PHENT, PHDR.size),
        (AT_PHNUM, start.phnum),
        (AT_BASE, start.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, start.entry),
        (AT_UID, creds.shown_uid(creds.uid)),
        (AT_EUID, creds.shown_uid(creds.euid)),
        (AT_GID, creds.shown_gid(creds.gid)),
        (AT_EGID, creds.shown_gid(creds.egid)),
        (AT_SECURE, int(secure)),
        (AT_RANDOM, random),
        (AT_HWCAP2, machine.hwcap2),
        (AT_EXECFN, file_name),
        (AT_PLATFORM, platform),
        (AT_NULL, 0),
    ]


def pack(vector: Sequence[tuple[int, int]]) -> bytes:
    """As it lies in memory."""
    return b"".join(struct.pack("<QQ", kind, value) for kind, value in vector)
