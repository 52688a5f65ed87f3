"""What a program serves to a sandbox of its own: file systems, devices, files of /proc."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

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
    from collections.abc import Callable

    from runsc.fs.service import Service

PATIENCE_S = 30.0


class _Served(NamedTuple):
    """One, as it was asked for."""

    order: ServeOrder
    kind: Callable[[Any], Service]
    served: object
    serving: AsyncServing


class AsyncObjects:
    """Those of one sandbox. They end with it, and with this process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._all: dict[str, _Served] = {}

    async def mount(
        self, path: str, served: FileSystem, readonly: bool, timeout: float
    ) -> None:
        """On a directory, which is made if it is not there."""
        patience_ns = nanoseconds("timeout", timeout)
        order = ServeOrder("mount", _path(path), readonly, patience_ns=patience_ns)
        await self._serve(order, Tree, served)

    async def device(self, path: str, served: Device, mode: int, timeout: float) -> None:
        """With a new name."""
        order = ServeOrder(
            "device", _path(path), mode=mode, patience_ns=nanoseconds("timeout", timeout)
        )
        await self._serve(order, DeviceService, served)

    async def proc_file(self, name: str, served: ProcFile, timeout: float) -> None:
        """In /proc."""
        patience_ns = nanoseconds("timeout", timeout)
        path = _path(name).removeprefix(b"/proc/")
        order = ServeOrder("proc", path, mode=served.mode & 0o666, patience_ns=patience_ns)
        await self._serve(order, TextService, served)

    async def unmount(self, path: str) -> None:
        """Raises: SandboxError."""
        reply = await ask(self._path, Request("serve", serve=ServeOrder("unmount", _path(path))))
        if reply.error:
            raise SandboxError(f"{path}: {reply.error}")
        found = self._all.pop(path, None)
        if found is not None:
            found.serving.close()

    async def begin_again(self) -> None:
        """In a sandbox that goes on from where it was before, without them: all are there again.

        Raises: SandboxError, of the first that is not; the others are.
        """
        self.close()
        failure: SandboxError | None = None
        for path, (order, kind, served, serving) in list(self._all.items()):
            try:
                if not await serving.ended(order.patience_ns / 1e9):
                    raise SandboxError(f"{path}: a method of what is served there does not return")
                await self._serve(order, kind, served)
            except SandboxError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _serve(
        self, order: ServeOrder, kind: Callable[[Any], Service], served: object
    ) -> None:
        path = os.fsdecode(order.path)
        if order.do == "mount":
            folder = FileOrder("make", order.path, mode=0o755)
            made = await ask(self._path, Request("file", file=folder))
            if made.error not in ("", "EEXIST"):
                raise SandboxError(f"{path}: {made.error}")
        ours, theirs = socket.socketpair()
        with theirs:
            serving = AsyncServing(kind(served), served, ours)
            serving.start()
            try:
                reply = await ask(self._path, Request("serve", serve=order), (theirs.fileno(),))
                if reply.error:
                    raise SandboxError(f"{path}: {reply.error}")
            except BaseException:
                serving.close()
                raise
        self._all[path] = _Served(order, kind, served, serving)

    def close(self) -> None:
        """Nothing is served any more."""
        for each in self._all.values():
            each.serving.close()


def _path(path: str) -> bytes:
    if not path or "\0" in path:
        raise ValueError(f"a path: {path!r}")
    return os.fsencode(path)
