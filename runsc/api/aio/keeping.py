"""Processes that do for this one what one of many threads cannot: `keeper.py`, and commands."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable

import msgspec

from runsc import quick
from runsc.api import programs
from runsc.api.aio.poll import ready
from runsc.api.aio.wire import NO_ANSWER, AsyncWire
from runsc.api.errors import SandboxEnded, SandboxError, SandboxNotFound
from runsc.api.order import BEGINS, MAX_LINE, Order, Word
from runsc.containers.names import default_root
from runsc.progress import Tell, silent
from runsc.zygote import client, place
from runsc.zygote.client import Unheard, Unserved
from runsc.zygote.protocol import GO, KEEPER, pack

START_S = 330.0
"""More than a sandbox may take to be ready."""
IMAGE_S = 3600.0
"""How long an image may take to become a root, if it is not in the cache."""
END_S = 60.0
"""How long one that ends may take, and what is done about it then is SIGKILL."""
MESSAGE_MAX = 1 << 16


class Logged(msgspec.Struct):
    """A line of the command line's log."""

    msg: str


class AsyncKeeper:
    """The process that keeps a sandbox, from this side."""

    def __init__(self, process: programs.Process, wire: AsyncWire) -> None:
        self._process = process
        self._wire = wire

    @classmethod
    async def start(
        cls, order: Order, cpus: int, warn: Callable[[str], object], tell: Tell = silent
    ) -> AsyncKeeper:
        """Have a sandbox made; it is ready then. Raises: SandboxError."""
        keeper = await cls.begin(order, cpus)
        await keeper.make(order, warn, tell)
        return keeper

    @classmethod
    async def begin(cls, order: Order, cpus: int) -> AsyncKeeper:
        """One that imports, and waits for what to make: with the folder and flags of `order`."""
        ours, theirs = socket.socketpair()
        try:
            process = await _begun(order, theirs.fileno(), cpus)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, AsyncWire(ours))

    async def make(
        self, order: Order, warn: Callable[[str], object], tell: Tell = silent
    ) -> None:
        """Make a sandbox, which is ready then; else end. Raises: SandboxError."""
        try:
            await self._order(order, warn, tell)
        except BaseException:
            await self.end()
            raise

    async def _order(
        self, order: Order, warn: Callable[[str], object], tell: Tell
    ) -> None:
        deadline = time.monotonic() + START_S + (IMAGE_S if order.image else 0.0)
        asked = msgspec.json.encode(order) + b"\n"
        if len(asked) > MAX_LINE:
            raise ValueError(f"{len(asked)} bytes are asked with, of {MAX_LINE} at most")
        try:
            await self._wire.send_bytes(asked)
            while True:
                line = await self._wire.line(max(0.0, deadline - time.monotonic()))
                word = msgspec.json.decode(line, type=Word)
                if word.word == "ready":
                    return
                if word.word == "error":
                    raise SandboxError(word.text)
                if word.word == "progress":
                    tell(word.text, word.done, word.total)
                else:
                    warn(word.text)
        except SandboxEnded:
            raise SandboxError(programs.why_ended()) from None

    async def leave(self) -> None:
        """The sandbox, which was made detached, goes on: somebody knows of it."""
        await self._wire.send_bytes(b"\n")
        await self.end()

    async def end(self) -> None:
        """The sandbox ends, and what there is of it is removed."""
        self._wire.close()
        await ended(self._process)


async def _begun(order: Order, fd: int, cpus: int) -> programs.Process:
    """A keeper at the other end of the socket: a fork of the zygote, where one listens; where none
    has begun it has one begin, as the command line does (`runsc/__main__.py`)."""
    words = [str(fd), str(cpus)]
    if _may_be_forked(order):
        try:
            return await _forked(fd, words)
        except Unheard:
            if order.state == default_root():
                words.append(BEGINS)
        except Unserved:
            pass
    return programs.begun(programs.KEEPER, words, [fd])


def _may_be_forked(order: Order) -> bool:
    found = quick.leading([*order.flags, "run"])
    return found is not None and found.flags["zygote"] != "off" and place.serves(order.state)


async def _forked(fd: int, words: list[str]) -> programs.Process:
    """Raises: Unserved."""
    numbers = (0, 1, 2, fd)
    environment = programs.environment(os.environ)
    variables = {os.fsencode(name): os.fsencode(text) for name, text in environment.items()}
    packet = pack("keeper", words, numbers, variables, KEEPER)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        sock = client.ask(packet, [null, null, null, fd])
    finally:
        os.close(null)
    with socket.socket(fileno=sock.detach()) as conn:
        if not await ready({conn.fileno(): select.POLLIN}, client.ANSWER_S):
            raise Unserved("it does not answer")
        process = programs.OfZygote(client.answer(conn))
        try:
            conn.send(GO, socket.MSG_NOSIGNAL)
        except OSError:
            raise Unserved("it has ended") from None
        return process


async def ended(process: programs.Process) -> int:
    """The exit code of a process of ours, once it has ended; SIGKILL if that takes too long."""
    if process.poll() is None:
        pidfd = process.pidfd()
        try:
            if not await ready({pidfd: select.POLLIN}, END_S):
                process.kill()
        finally:
            os.close(pidfd)
    return process.wait()


async def command(root: str, *words: str, patience_s: float | None = END_S) -> None:
    """One of the command line, to its end; None: however long it takes.

    Raises: SandboxNotFound, SandboxEnded, SandboxError.
    """
    process = programs.begun(
        programs.COMMAND_LINE,
        [f"--root={root}", "--log-format=json", *words],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = bytearray()
    with process.stderr as source:
        os.set_blocking(source.fileno(), False)
        while len(said) < MESSAGE_MAX:
            if not await ready({source.fileno(): select.POLLIN}, patience_s):
                break
            piece = os.read(source.fileno(), MESSAGE_MAX)
            if not piece:
                break
            said += piece
    if not await ended(process):
        return
    text = _messages(bytes(said)) or NO_ANSWER
    if "does not exist" in text:
        raise SandboxNotFound(text)
    if "not running" in text:
        raise SandboxEnded(text)
    raise SandboxError(text)


def _messages(said: bytes) -> str:
    """What the command line has logged, without times and levels; all of it, if it is no log."""
    try:
        found = [msgspec.json.decode(line, type=Logged).msg for line in said.splitlines()]
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = [said.decode(errors="replace").strip()]
    return "; ".join(found)
