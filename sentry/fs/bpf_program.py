"""bpf(2): an extended BPF program as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_RDWR
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from sentry.vfs.vfs import Vfs

MODE: Final = 0o600


class ProgramFile(FileDescription):
    """An open one. It cannot be read or written."""

    __slots__ = ("program",)
    has_read = False
    has_write = False
    splice_read = False
    splice_write = False
    seeks_nowhere = True

    def __init__(self, vfs: Vfs, program: Any) -> None:
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), MODE, Owner(0, 0))
        super().__init__(vfs.anon_location(inode, b"anon_inode:bpf-prog"), O_RDWR)
        self.program = program.hold()

    def release(self) -> None:
        """The last descriptor is closed."""
        self.program.release()

    def fdinfo(self) -> str:
        """bpf_prog_show_fdinfo(), what there is of it."""
        size = -(-len(self.program.filter.data) // 4096) * 4096
        return (
            f"prog_type:\t{self.program.filter.kind}\nprog_jited:\t0\nmemlock:\t{size}\n"
            f"prog_id:\t{self.program.id}\n"
        )
