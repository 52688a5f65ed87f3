"""A `Device` behind 9P."""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from gofer.p9 import constants as c
from gofer.p9.attributes import Attributes
from gofer.p9.codec import Message
from gofer.p9.extensions import Rioctlx, Rpollx, Rwalkx, Tioctlx, Tpollx, Twalkx
from gofer.p9.messages import Rlerror, Rread, Rstatfs, Rwrite, Tread, Tstatfs, Twrite
from runsc.fs.device import Device, OpenDevice
from runsc.fs.service import Service, result

MODE: Final = 0o020666
EVENTS: Final = 0x3FFF


class DeviceService(Service):
    """One session with a device."""

    attachment = b"device"
    kinds: ClassVar = {
        Twalkx: "walk", Tread: "read", Twrite: "write", Tioctlx: "ioctl", Tpollx: "poll",
        Tstatfs: "statfs",
    }  # fmt: skip
    beside = (Tread, Twrite, Tioctlx)

    def __init__(self, served: Device) -> None:
        super().__init__()
        self._device = served
        self._polls: dict[OpenDevice, tuple[int, int]] = {}
        """Who is asked for changes: the tag, and what is known."""

    def root(self) -> Device:
        return self._device

    def _open(self, fid: int) -> OpenDevice:
        found = self.fid(fid)
        if not isinstance(found, OpenDevice):
            raise OSError(errno.EBADF, "not open")
        return found

    async def walk(self, _tag: int, asked: Twalkx) -> Message:
        """Twalkx: what is there, or an open(2)."""
        self.fid(asked.fid)
        block = Attributes(MODE, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 4096, 0).pack()
        if asked.names:
            raise FileNotFoundError(errno.ENOENT, "a device has no names")
        if asked.newfid == c.NOFID:
            return Rwalkx(0, c.OPENED_NO, b"", [block])
        opened = await result(self._device.open(asked.flags))
        if not isinstance(opened, OpenDevice):
            raise TypeError(f"open() gave {opened!r}, no OpenDevice")
        opened.changed = lambda: self.look(opened)
        self.bind(asked.newfid, opened)
        return Rwalkx(0, c.OPENED_FID, b"", [block])

    async def clunk(self, what: Device | OpenDevice | None) -> None:
        if isinstance(what, OpenDevice):
            waiting = self._polls.pop(what, None)
            if waiting is not None:
                self.send(waiting[0], Rlerror(errno.EBADF))
            await result(what.close())

    async def read(self, _tag: int, asked: Tread) -> Message:
        """Tread."""
        size = min(asked.count, c.MSIZE_MAX - c.IO_HEADER_SIZE)
        opened = self._open(asked.fid)
        data = await result(opened.read(size))
        self.look(opened)
        return Rread(bytes(data)[:size])

    async def write(self, _tag: int, asked: Twrite) -> Message:
        """Twrite."""
        opened, data = self._open(asked.fid), bytes(asked.data)
        taken = await result(opened.write(data))
        self.look(opened)
        return Rwrite(len(data) if taken is None else max(0, min(int(taken), len(data))))

    async def ioctl(self, _tag: int, asked: Tioctlx) -> Message:
        """Tioctlx."""
        opened = self._open(asked.fid)
        found = await result(opened.ioctl(asked.request, asked.argument, bytes(asked.data)))
        self.look(opened)
        number, data = found if isinstance(found, tuple) else (found, b"")
        return Rioctlx(int(number or 0) & 0x7FFFFFFF, bytes(data))

    async def poll(self, tag: int, asked: Tpollx) -> Message | None:
        """Tpollx: at once, if it is something else than is known."""
        opened = self._open(asked.fid)
        self._polls[opened] = tag, asked.known  # first, for `changed` in another thread
        events = int(opened.poll()) & EVENTS
        if events != asked.known and self._polls.pop(opened, None) is not None:
            return Rpollx(events)
        return None

    async def statfs(self, _tag: int, _asked: Tstatfs) -> Message:
        """Tstatfs."""
        return Rstatfs(0, 4096, 0, 0, 0, 0, 0, 0, c.NAME_MAX)

    def look(self, opened: OpenDevice) -> None:
        """It may say something else now."""
        waiting = self._polls.get(opened)
        if waiting is None:
            return
        events = int(opened.poll()) & EVENTS
        if events == waiting[1]:
            return
        # Another thread may have answered meanwhile, and the sandbox have asked anew.
        asked = self._polls.pop(opened, None)
        if asked is not None:
            self.send(asked[0], Rpollx(events))
