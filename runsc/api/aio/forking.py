"""Forks of a sandbox: the process that makes them, from this side."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from runsc.api import programs, states
from runsc.api.aio.keeping import ended
from runsc.api.aio.wire import AsyncWire, send_with
from runsc.api.errors import SandboxEnded, SandboxError
from runsc.api.order import MAX_LINE, ForkWish, Word
from runsc.api.values import nanoseconds

FORK_S = 330.0
"""More than forks may take to be ready."""
NAME_BYTES = 6


class AsyncForker:
    """The process, which is started with the first fork."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._process: programs.Child | None = None
        self._wishes: socket.socket | None = None

    def _start(self) -> socket.socket:
        with self._lock:
            if self._wishes is None:
                wishes, theirs = socket.socketpair()
                with theirs:
                    words = [self._state, str(theirs.fileno())]
                    self._process = programs.begun(programs.FORKER, words, [theirs.fileno()])
                self._wishes = wishes
            return self._wishes

    async def fork(
        self, origin: str, count: int, *, timeout: float | None = None, hostname: str = "",
        memory: int = 0, network: str | Sequence[str] | None = None, forkable: bool = False,
        stands: bool = False,
    ) -> Sequence[str]:  # fmt: skip
        """The names of new copies of a sandbox. Raises: SandboxError; ValueError: too many."""
        states.load(self._state, origin)  # else a process would begin that nobody ends
        word, namespaces = _network(network)
        names = tuple(f"{origin}-{secrets.token_hex(NAME_BYTES)}" for _ in range(count))
        wish = ForkWish(
            names, origin, hostname=hostname, expires_ns=nanoseconds("timeout", timeout),
            memory=memory, network=word, namespaces=namespaces, forkable=forkable, stands=stands,
        )  # fmt: skip
        line = _line(wish)
        try:
            await self._wish(line)
        except SandboxError:
            raise
        except BaseException:  # nobody would know of them
            with suppress(SandboxError, OSError):
                wire = self._asking()
                await wire.send_bytes(_line(ForkWish(names, ends=True)))
                wire.close()
            raise
        return names

    async def roll_back(self, name: str, template: str) -> None:
        """A sandbox goes on from where its template is. Raises: SandboxError."""
        await self._wish(_line(ForkWish((name,), template, succeeds=True)))

    async def end_fork(self, name: str) -> None:
        """One of them, and its forks. Harmless if it has ended."""
        if self._process is not None and self._process.poll() is None:
            await self._wish(_line(ForkWish((name,), ends=True)))

    async def end(self) -> None:
        """All of them."""
        process, self._process = self._process, None
        if self._wishes is not None:
            self._wishes.close()
            self._wishes = None
        if process is not None:
            await ended(process)

    async def _wish(self, line: bytes) -> None:
        async with self._asking() as wire:
            try:
                await wire.send_bytes(line)
                word = msgspec.json.decode(await wire.line(FORK_S), type=Word)
            except SandboxEnded:
                raise SandboxError("the process that makes forks has ended") from None
        if word.word == "error":
            raise SandboxError(word.text)

    def _asking(self) -> AsyncWire:
        """A connection for one wish. Raises: SandboxError."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                wishes = self._start()
                try:
                    send_with(wishes, b"\0", [theirs.fileno()])
                except OSError:  # another thread may have ended it
                    raise SandboxError("the process that makes forks has ended") from None
        except BaseException:
            ours.close()
            raise
        return AsyncWire(ours)


def _line(wish: ForkWish) -> bytes:
    """Raises: ValueError for what nobody would read."""
    line = msgspec.json.encode(wish) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"{len(line)} bytes are asked with, of {MAX_LINE} at most")
    return line


def _network(asked: str | Sequence[str] | None) -> tuple[str | None, tuple[str, ...]]:
    """A word, or paths of network namespaces. Raises: ValueError."""
    if asked is None or asked in ("none", "sandbox"):
        return str(asked) if asked else None, ()
    paths = (asked,) if isinstance(asked, str) else tuple(asked)
    if not paths or not all(each.startswith("/") for each in paths):
        raise ValueError(f"network of a fork: {asked}")
    return None, paths


class AsyncForkKeeper:
    """Who ends one fork."""

    def __init__(self, forker: AsyncForker, name: str) -> None:
        self.forker = forker
        """Of the sandbox that all are copies of."""
        self._name = name

    async def end(self) -> None:
        """The fork ends, and what there is of it is removed."""
        await self.forker.end_fork(self._name)
