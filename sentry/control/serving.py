"""`Serving`: what a process of the sandbox's owner serves comes into a container, or goes.

A file system is mounted on a directory; a device gets a number and a name; a file appears in /proc.
The stream to the server comes with the request, and is all that the Sentry has of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from sentry.abi.fcntl import AT_FDCWD
from sentry.abi.limits import PATH_MAX
from sentry.abi.mount import MS_NODEV, MS_NOSUID, MS_RDONLY
from sentry.abi.socket import AF_UNIX, SO_DOMAIN, SO_TYPE, SOCK_STREAM, SOL_SOCKET
from sentry.abi.stat import S_IFCHR, S_IFMT
from sentry.control.descriptors import close_all
from sentry.control.orders import ServeOrder
from sentry.control.outside import acting
from sentry.control.protocol import DEFECT, Reply
from sentry.errors import EBUSY, EINVAL, ENOENT, ENOTDIR, Errno
from sentry.fs.gofer import arrival  # noqa: F401  what is served needs it
from sentry.fs.served import device, filesystem, proc
from sentry.fs.served.session import ServedSession
from sentry.net.host import calls
from sentry.suppress import suppress
from sentry.vfs import mounting, names, unmounting
from sentry.vfs.mount import top
from sentry.vfs.walk import resolve
from sentry.wait.again import again
from sentry.wait.fiber import Killed, Mode
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

MAJOR: Final = 240
"""The first of those for local use: Documentation/admin-guide/devices.txt."""
MINORS: Final = 256
STREAM: Final = [AF_UNIX, SOCK_STREAM]


def _served(place: Location) -> filesystem.ServedFileSystem | None:
    """What is mounted there from outside."""
    fs = place.mount.fs
    is_root = place.dentry is place.mount.root
    return fs if is_root and isinstance(fs, filesystem.ServedFileSystem) else None


class Serving:
    """One order. `told` hears what came of it. Raises: EINVAL, EBUSY, ESRCH; `fds` are closed."""

    def __init__(
        self,
        kernel: Kernel,
        container: Container,
        fds: list[int],
        order: ServeOrder,
        told: Callable[[Reply], object],
    ) -> None:
        self._kernel = kernel
        self._order = order
        self._told: Callable[[Reply], object] | None = told
        self._session: ServedSession | None = None
        try:
            self._check(fds)
            self._acting = acting(container, 0, 0, ())
            if fds:
                made = ServedSession(socket.socket(fileno=fds[0]), kernel.loop, order.patience_ns)
                self._session = made
                kernel.services.served.add(made)
        except Errno:
            if self._session is not None:
                self._session.close()
            else:
                close_all(fds)
            raise
        self._fiber = kernel.loop.spawn(self._do(), "serve", self._ended)

    def _check(self, fds: list[int]) -> None:
        order = self._order
        if order.do not in ("mount", "device", "proc", "unmount"):
            raise EINVAL(f"no such order: {order.do[:20]!r}")
        if len(fds) != (order.do != "unmount"):
            raise EINVAL("a stream is missing, or one too many")
        for fd in fds:
            if [int.from_bytes(calls.option(fd, SOL_SOCKET, name, 4), "little")
                    for name in (SO_DOMAIN, SO_TYPE)] != STREAM:  # fmt: skip
                raise EINVAL("no Unix stream socket")
        if b"\0" in order.path or not 0 < len(order.path) < PATH_MAX:
            raise EINVAL("a path")

    def look(self) -> None:
        """Nothing is there at once."""

    def abandon(self) -> None:
        """Who asked is gone."""
        self._fiber.interrupt(Killed(), Mode.KILLABLE)

    @property
    def _caller(self) -> Caller:
        return cast("Caller", self._acting)

    async def _do(self) -> None:
        order, session = self._order, self._session
        if session is None:
            await self._unmount()
            return
        if order.do == "mount":
            await self._mount(session)
        elif order.do == "device":
            await self._device(session)
        else:
            await self._proc(session)
        session.watch_for_end()

    async def _mount(self, session: ServedSession) -> None:
        kernel, caller = self._kernel, cast("Any", self._acting)
        fs = await filesystem.attached(
            kernel.vfs, session, read_only=self._order.read_only
        )
        fs.source = "served"
        flags = MS_NODEV | MS_NOSUID | (MS_RDONLY if self._order.read_only else 0)
        place = await self._place()
        while (gone := _served(place)) is not None and gone.session.dead:
            await self._take_off(place)
            place = await self._place()
        if not place.dentry.inode.is_dir:
            raise ENOTDIR("a file system is mounted on a directory")
        caller.mounts.check_room()
        mount = kernel.vfs.new_mount(fs, flags)
        await self._changed(lambda: mounting.add_new(caller, mount, place))

    async def _unmount(self) -> None:
        """Raises: EINVAL if nothing of a caller's is mounted there."""
        place = await self._place()
        if _served(place) is None:
            raise EINVAL("nothing that is served from outside is mounted there")
        await self._take_off(place)

    async def _place(self) -> Location:
        return top(await again(resolve, self._caller, AT_FDCWD, self._order.path))

    async def _take_off(self, place: Location) -> None:
        await self._changed(lambda: unmounting.detach.steps(place.mount))

    async def _changed(self, steps: Callable[[], Steps[None]]) -> None:
        async with cast("Any", self._acting).mounts.lock:
            await driven(steps())

    async def _device(self, session: ServedSession) -> None:
        vfs, caller = self._kernel.vfs, self._caller
        await self._forget_device()
        found = await device.attached(session)
        number = self._free_number()
        vfs.devices[S_IFCHR, number] = found.open
        session.on_end.append(lambda: vfs.devices.pop((S_IFCHR, number), None))
        mode = S_IFCHR | self._order.mode
        await again(names.mknod, caller, AT_FDCWD, self._order.path, mode, number)

    async def _forget_device(self) -> None:
        """A device whose server has ended leaves its name."""
        with suppress(ENOENT):
            place = await again(
                resolve, self._caller, AT_FDCWD, self._order.path, follow=False
            )
            inode = place.dentry.inode
            kind, number = inode.mode & S_IFMT, inode.rdev
            is_ours = kind == S_IFCHR and number >> 8 == MAJOR
            if is_ours and (kind, number) not in self._kernel.vfs.devices:
                await again(names.unlink, self._caller, AT_FDCWD, self._order.path)

    def _free_number(self) -> int:
        for minor in range(MINORS):
            number = MAJOR << 8 | minor
            if (S_IFCHR, number) not in self._kernel.vfs.devices:
                return number
        raise EBUSY("too many devices are served")

    async def _proc(self, session: ServedSession) -> None:
        from sentry.fs.proc.contents import LINKS  # noqa: PLC0415
        from sentry.fs.proc.folders import check_new  # noqa: PLC0415

        path, texts = self._order.path.removeprefix(b"/proc/"), self._kernel.services.proc_files
        check_new(os.fsdecode(path), LINKS)
        texts.check_new(path)
        text = await proc.attached(session, self._order.mode & 0o666)
        texts.add(path, session, text)

    def _ended(self, _: object, error: BaseException | None) -> None:
        if error is not None and self._session is not None:
            self._session.close()
        told, self._told = self._told, None
        if told is None or isinstance(error, Killed):
            return
        if error is None:
            told(Reply())
        elif isinstance(error, Errno):
            told(Reply(error=type(error).__name__))
        else:
            self._kernel.log.bug("serve", error)
            told(Reply(error=DEFECT))
