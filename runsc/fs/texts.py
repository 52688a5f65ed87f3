"""A `ProcFile` behind 9P."""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import Rgetxattrx, Rsetxattrx, Rwalkx, Tgetxattrx, Tsetxattrx, Twalkx
from gofer.p9.messages import Rstatfs, Tstatfs
from runsc.fs.procfile import ProcFile
from runsc.fs.service import Service, result

MOST: Final = 1 << 17


class TextService(Service):
    """One session with a file of /proc."""

    attachment = b"proc"
    kinds: ClassVar = {
        Twalkx: "walk", Tgetxattrx: "show", Tsetxattrx: "store", Tstatfs: "statfs",
    }  # fmt: skip
    beside = (Tgetxattrx, Tsetxattrx)

    def __init__(self, served: ProcFile) -> None:
        super().__init__()
        self._file = served

    def root(self) -> ProcFile:
        return self._file

    async def walk(self, _tag: int, asked: Twalkx) -> Message:
        """Twalkx: what is there."""
        self.fid(asked.fid)
        if asked.names or asked.newfid != c.NOFID:
            raise OSError(errno.EOPNOTSUPP, "one file")
        block = Attributes(0o100444, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 4096, 0).pack()
        return Rwalkx(0, c.OPENED_NO, b"", [block])

    async def show(self, _tag: int, asked: Tgetxattrx) -> Message:
        """Tgetxattrx."""
        self.fid(asked.fid)
        text = await result(self._file.show())
        data = text.encode() if isinstance(text, str) else bytes(text)
        if len(data) > MOST:
            raise OSError(errno.EFBIG, "a text of more than 128 KiB")
        return Rgetxattrx(data)

    async def store(self, _tag: int, asked: Tsetxattrx) -> Message:
        """Tsetxattrx."""
        self.fid(asked.fid)
        await result(self._file.store(bytes(asked.value)))
        return Rsetxattrx()

    async def statfs(self, _tag: int, _asked: Tstatfs) -> Message:
        """Tstatfs."""
        return Rstatfs(0, 4096, 0, 0, 0, 0, 0, 0, c.NAME_MAX)
