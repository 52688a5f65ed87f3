"""What fcntl(F_ADD_SEALS) needs of a file in memory, whichever file system it is of."""

from __future__ import annotations

from typing import Any, Final

from sentry.abi.fcntl import (
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
)
from sentry.errors import EBUSY, EINVAL, EPERM
from sentry.mm.vma import VmFlag
from sentry.vfs.file import FileDescription

ALL_SEALS: Final = (
    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC
)


def seals_of(file: FileDescription) -> int:
    """F_GET_SEALS. Raises: EINVAL for a file that has none."""
    if not file.inode.can_seal or file.secret:
        raise EINVAL("cannot be sealed")
    return file.inode.seals


def add_seals(file: FileDescription, seals: int) -> None:
    """F_ADD_SEALS: memfd_add_seals(). Raises: EPERM, EINVAL, EBUSY while mapped for writing."""
    if not file.writable:
        raise EPERM("not open for writing")
    if seals & ~ALL_SEALS:
        raise EINVAL(f"seals {seals:#x}")
    inode: Any = file.inode
    if seals_of(file) & F_SEAL_SEAL:
        raise EPERM("sealed")
    if seals & F_SEAL_EXEC and inode.mode & 0o111:
        seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE
    if seals & F_SEAL_WRITE and not inode.seals & F_SEAL_WRITE and _mapped_writable(inode):
        raise EBUSY("mapped for writing")
    inode.seals |= seals


def _mapped_writable(inode: Any) -> bool:
    """Also where only mprotect(2) is missing: mapping_deny_writable()."""
    if inode.data is None:
        return False
    return any(
        vma.backing is inode.data and vma.shared and vma.flags & VmFlag.MAYWRITE
        for mapper in inode.data.mappers
        for vma in mapper.vmas.backed()
    )
