"""What a program serves to a sandbox of its own: file systems, devices, files of /proc."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from runsc.api.aio.serving import AsyncServing
from runsc.api.aio.wire import ask
from runsc.api.errors import SandboxError
from runsc.api.values import nanoseconds
from runsc.fs.device import Device
from runsc.fs.devices import DeviceService
from runsc.fs.filesystem import FileSystem
from runsc.fs.procfile import ProcFile
from runsc.fs.texts import TextService
from runsc.fs.tree import Tree
from sentry.control.orders import FileOrder, ServeOrder
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.fs.service import Service

PATIENCE_S = 30.0


class AsyncObjects:
    """Those of one sandbox. They end with it, and with this process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._all: dict[str, AsyncServing] = {}

    async def mount(
        self, path: str, served: FileSystem, readonly: bool, timeout: float
    ) -> None:
        """On a directory, which is made if it is not there."""
        folder = FileOrder("make", _path(path), mode=0o755)
        made = await ask(self._path, Request("file", file=folder))
        if made.error not in ("", "EEXIST"):
            raise SandboxError(f"{path}: {made.error}")
        patience_ns = nanoseconds("timeout", timeout)
        order = ServeOrder("mount", _path(path), readonly, patience_ns=patience_ns)
        await self._serve(order, Tree(served), served)

    async def device(self, path: str, served: Device, mode: int, timeout: float) -> None:
        """With a new name."""
        order = ServeOrder(
            "device", _path(path), mode=mode, patience_ns=nanoseconds("timeout", timeout)
        )
        await self._serve(order, DeviceService(served), served)

    async def proc_file(self, name: str, served: ProcFile, timeout: float) -> None:
        """In /proc."""
        patience_ns = nanoseconds("timeout", timeout)
        path = _path(name).removeprefix(b"/proc/")
        order = ServeOrder("proc", path, mode=served.mode & 0o666, patience_ns=patience_ns)
        await self._serve(order, TextService(served), served)

    async def unmount(self, path: str) -> None:
        """Raises: SandboxError."""
        reply = await ask(self._path, Request("serve", serve=ServeOrder("unmount", _path(path))))
        if reply.error:
            raise SandboxError(f"{path}: {reply.error}")
        serving = self._all.pop(path, None)
        if serving is not None:
            serving.close()

    async def _serve(self, order: ServeOrder, service: Service, served: object) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            serving = AsyncServing(service, served, ours)
            serving.start()
            try:
                reply = await ask(self._path, Request("serve", serve=order), (theirs.fileno(),))
                if reply.error:
                    raise SandboxError(f"{os.fsdecode(order.path)}: {reply.error}")
            except BaseException:
                serving.close()
                raise
        self._all[os.fsdecode(order.path)] = serving

    def close(self) -> None:
        """Nothing is served any more."""
        while self._all:
            self._all.popitem()[1].close()


def _path(path: str) -> bytes:
    if not path or "\0" in path:
        raise ValueError(f"a path: {path!r}")
    return os.fsencode(path)
