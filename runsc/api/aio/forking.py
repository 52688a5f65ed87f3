"""Forks of a sandbox: the process that makes them, from this side, and `AsyncTemplate`."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from runsc.api import programs
from runsc.api.aio.keeping import ended
from runsc.api.aio.wire import AsyncWire
from runsc.api.errors import SandboxEnded, SandboxError
from runsc.api.order import ForkWish, Word
from runsc.api.values import nanoseconds

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from runsc.api.aio.sandbox import AsyncSandbox

FORK_S = 330.0
"""More than forks may take to be ready."""
NAME_BYTES = 6


class AsyncForker:
    """The process, which is started with the first fork."""

    def __init__(self, state: str, sandbox_id: str) -> None:
        self._state = state
        self._id = sandbox_id
        self._process: subprocess.Popen[bytes] | None = None
        self._wishes: socket.socket | None = None

    def _start(self) -> socket.socket:
        if self._wishes is None:
            self._wishes, theirs = socket.socketpair()
            with theirs:
                words = [self._state, str(theirs.fileno()), self._id]
                self._process = programs.begun(programs.FORKER, words, [theirs.fileno()])
        return self._wishes

    async def fork(self, count: int, timeout: float | None, hostname: str) -> Sequence[str]:
        """The names of new ones. Raises: SandboxError."""
        names = tuple(f"{self._id}-{secrets.token_hex(NAME_BYTES)}" for _ in range(count))
        expires_ns = nanoseconds("timeout", timeout)
        await self._wish(ForkWish(names, hostname=hostname, expires_ns=expires_ns))
        return names

    async def end_fork(self, name: str) -> None:
        """One of them. Harmless if it has ended."""
        if self._process is not None and self._process.poll() is None:
            await self._wish(ForkWish((name,), ends=True))

    async def end(self) -> None:
        """All of them."""
        process, self._process = self._process, None
        if self._wishes is not None:
            self._wishes.close()
            self._wishes = None
        if process is not None:
            await ended(process)

    async def _wish(self, wish: ForkWish) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async with AsyncWire(ours) as wire:
            with theirs:
                try:
                    socket.send_fds(self._start(), [b"\0"], [theirs.fileno()])
                except (BrokenPipeError, ConnectionResetError):
                    raise SandboxError("the process that makes forks has ended") from None
            try:
                await wire.send_bytes(msgspec.json.encode(wish) + b"\n")
                word = msgspec.json.decode(await wire.line(FORK_S), type=Word)
            except SandboxEnded:
                raise SandboxError("the process that makes forks has ended") from None
        if word.word == "error":
            raise SandboxError(word.text)


class AsyncForkKeeper:
    """Who ends one fork."""

    def __init__(self, forker: AsyncForker, name: str) -> None:
        self._forker = forker
        self._name = name

    async def end(self) -> None:
        """The fork ends, and what there is of it is removed."""
        await self._forker.end_fork(self._name)


class AsyncTemplate:
    """A sandbox that stands still for ever, in memory, to be forked: what it is does not change."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox

    @classmethod
    async def of(cls, sandbox: AsyncSandbox) -> Self:
        """Have a sandbox that was made `forkable` stand still, as it is now. Raises: SandboxEnded,
        SandboxError."""
        await sandbox.pause()
        return cls(sandbox)

    @property
    def sandbox_id(self) -> str:
        """The sandbox's."""
        return self._sandbox.sandbox_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, and with it all its forks."""
        await self.kill()

    async def fork(
        self, count: int = 1, *, timeout: float | None = None, hostname: str = ""
    ) -> list[AsyncSandbox]:
        """Sandboxes that go on from there: see `AsyncSandbox.fork`."""
        return await self._sandbox.fork(count, timeout=timeout, hostname=hostname)

    async def kill(self) -> bool:
        """End it, and with it all its forks. False if it was gone."""
        return await self._sandbox.kill()
