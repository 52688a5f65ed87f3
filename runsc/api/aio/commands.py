"""Commands in a sandbox: run to their ends, or handles of those that go on."""

from __future__ import annotations

import codecs
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, overload

from runsc.api.aio import files
from runsc.api.aio.poll import ready
from runsc.api.aio.streams import AsyncSink, AsyncStream, pipe
from runsc.api.aio.wire import ANSWER_S, NO_ANSWER, AsyncWire, end_of
from runsc.api.ending import exit_code, raise_exceeded, usage_of
from runsc.api.errors import CommandNotStarted, SandboxEnded, SandboxError
from runsc.api.execspec import Command, Spec
from runsc.api.limits import OutputLimitExceeded
from runsc.api.values import OUTPUT, CommandResult, Limits, PathLike
from sentry.control.orders import ExecProcess
from sentry.control.protocol import Event, Request

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

Input = str | bytes | bytearray | memoryview | Iterable[bytes]
Heard = Callable[[str], object]
STOPPED = "cannot exec in a stopped container"
PAUSED = "cannot exec in a paused container"
DRAINED = 64
"""Reads of what is left in a pipe when a command has ended."""


class AsyncCommandHandle:
    """A command that runs. Closing the handle ends it, with all that it has started; so does the
    end of this process."""

    def __init__(self, wire: AsyncWire, spec: Spec, pid: int, fds: tuple[int, int, int]) -> None:
        """`fds`: what its standard input is written to, or -1; what its output and errors are read
        from, the last -1 where it has none."""
        self.pid = pid
        """As the sandbox numbers it."""
        self._wire = wire
        self._spec = spec
        self._written = 0
        self._ended: Event | None = None
        self._result: CommandResult | None = None
        self._is_over = False
        """More was written than may be: it was told to end."""
        self._stdin = AsyncSink(fds[0])
        self.stdout = AsyncStream(fds[1], self._took)
        """Bytes, as they come; who iterates it has to read, or the command stands still."""
        self.stderr = AsyncStream(fds[2], self._took)
        self._collected = {self.stdout: bytearray(), self.stderr: bytearray()}
        self._heard: dict[AsyncStream, Callable[[bytes], object]] = {}
        self._feed: memoryview | None = None
        self._feeding: Iterable[bytes] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it has not ended. Harmless if it has."""
        self._wire.close()
        self._stdin.close()
        self.stdout.close()
        self.stderr.close()

    # --- what goes in

    async def send_stdin(self, data: str | bytes) -> None:
        """Write to its standard input, as fast as it reads. Raises: BrokenPipeError."""
        await self._stdin.send(data.encode() if isinstance(data, str) else data)

    def close_stdin(self) -> None:
        """It reads to the end of its standard input."""
        self._feed = None
        self._stdin.close()

    def feed(self, data: Input) -> None:
        """What `wait` writes to its standard input, which is closed then."""
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, bytes | bytearray | memoryview):
            data = [bytes(data)]
        pieces = iter(data)
        self._feeding, self._feed = pieces, memoryview(b"")
        self._next_feed()

    def _next_feed(self) -> None:
        """Until there is something to write, or no more."""
        while self._feed is not None and not self._feed:
            piece = next(iter(self._feeding), None)
            self._feed = None if piece is None else memoryview(piece)
        if self._feed is None:
            self._stdin.close()

    async def kill(self, signal: int = signal.SIGKILL) -> None:
        """A signal for it and all that it has started. Nothing happens if it has ended."""
        if self._ended is None:
            with suppress(SandboxEnded, OSError):
                await self._wire.send(Request("signal", signal=signal, all=True))

    # --- what comes out

    def hear(self, stream: AsyncStream, heard: Heard) -> None:
        """`wait` calls a function with the text that comes, and does not collect it."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

        def tell(data: bytes) -> None:
            text = decoder.decode(data, final=not data)
            if text:
                heard(text)

        self._heard[stream] = tell

    def hear_bytes(self, stream: AsyncStream, heard: Callable[[bytes], object]) -> None:
        """The same with bytes."""
        self._heard[stream] = lambda data: heard(data) if data else None

    def _took(self, size: int) -> None:
        self._written += size
        most = self._spec.limits.output
        if most is not None and self._written > most:
            self._too_much()

    def _too_much(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._wire.send_now(Request("signal", signal=signal.SIGKILL, all=True))

    async def wait(self) -> CommandResult:
        """Its end: what it has written, and used. What is read by others is not collected.

        Raises: LimitExceeded, SandboxEnded. May be called again.
        """
        if self._result is None:
            try:
                while not await self._step():
                    pass
            except SandboxEnded:
                self.close()
                raise
            self._result = self._settled()
        self._raise_exceeded(self._result)
        return self._result

    async def _step(self) -> bool:
        """Wait for something, and take it; whether all is over."""
        if self._wire.fileno() < 0:
            raise SandboxEnded("the command was ended")
        streams = [each for each in (self.stdout, self.stderr) if self._is_ours(each)]
        wanted = {each.fileno(): select.POLLIN for each in streams}
        wanted[self._wire.fileno()] = select.POLLIN
        if self._feed is not None:
            wanted[self._stdin.fileno()] = select.POLLOUT
        patience_s = self._patience_s()
        if self._wire.has_line:
            found = {self._wire.fileno(): select.POLLIN}
        else:
            found = await ready(wanted, patience_s)
        if not found:
            raise SandboxError(NO_ANSWER)
        for stream in streams:
            if stream.fileno() in found:
                self._take(stream)
        if self._feed is not None and self._stdin.fileno() in found:
            self._give()
        if self._wire.fileno() in found:
            self._hear_of_end()
        if self._ended is None:
            if patience_s == 0:  # much comes, and not that it has ended
                raise SandboxError(NO_ANSWER)
            return False
        for stream in streams:
            await self._drain(stream)
        return True

    async def _drain(self, stream: AsyncStream) -> None:
        """All that it has written is there; what it has left running may write for ever."""
        for _ in range(DRAINED):
            if not self._take(stream):
                break

    def _patience_s(self) -> float | None:
        """So long the sandbox may take to say that the time is over."""
        if self._spec.timeout is None:
            return None
        return max(0.0, self._spec.began + self._spec.timeout + ANSWER_S - time.monotonic())

    def _is_ours(self, stream: AsyncStream) -> bool:
        return stream.fileno() >= 0 and not stream.is_claimed

    def _take(self, stream: AsyncStream) -> bool:
        """What is there; whether there may be more."""
        data = stream.take()
        if data is None:
            return False
        heard = self._heard.get(stream)
        if heard is not None:
            heard(data)
        else:
            kept = self._collected[stream]
            room = max(0, self._most() - sum(map(len, self._collected.values())))
            kept += data[:room]
            if len(data) > room:
                self._too_much()
        return bool(data)

    def _most(self) -> int:
        most = self._spec.limits.output
        return OUTPUT if most is None else most

    def _give(self) -> None:
        assert self._feed is not None
        try:
            self._feed = self._feed[self._stdin.give(self._feed) :]
        except BrokenPipeError:  # it has enough
            self._feed = None
            return
        self._next_feed()

    def _hear_of_end(self) -> None:
        line = self._wire.line_there()
        while line is not None and self._ended is None:
            self._ended = end_of(line)
            line = self._wire.line_there() if self._wire.has_line else None

    def _settled(self) -> CommandResult:
        assert self._ended is not None
        wall = time.monotonic() - self._spec.began
        self._wire.close()
        self._stdin.close()
        for stream in (self.stdout, self.stderr):
            heard = self._heard.get(stream)
            if heard is not None:
                heard(b"")
            if not stream.is_claimed:
                stream.close()
        return CommandResult(
            exit_code(self._ended.status),
            bytes(self._collected[self.stdout]),
            bytes(self._collected[self.stderr]),
            usage_of(self._ended.use, wall),
        )

    def _raise_exceeded(self, result: CommandResult) -> None:
        assert self._ended is not None
        if self._is_over:
            raise OutputLimitExceeded(self._most(), self._written, result)
        if self._ended.exceeded:
            raise_exceeded(self._ended.exceeded, self._spec.timeout, self._spec.limits, result)


class AsyncCommands:
    """`sandbox.commands`."""

    def __init__(self, path: str, user: str | int | None) -> None:
        self._path = path
        """Of the control socket."""
        self._user = user

    @overload
    async def run(
        self, cmd: Command, *, background: Literal[False] = False, timeout: float | None = None,
        cwd: PathLike | None = None, env: Mapping[str, str] | None = None,
        user: str | int | None = None, on_stdout: Heard | None = None,
        on_stderr: Heard | None = None, stdin: Input | None = None, limits: Limits | None = None,
    ) -> CommandResult: ...  # fmt: skip

    @overload
    async def run(
        self, cmd: Command, *, background: Literal[True], timeout: float | None = None,
        cwd: PathLike | None = None, env: Mapping[str, str] | None = None,
        user: str | int | None = None, on_stdout: Heard | None = None,
        on_stderr: Heard | None = None, stdin: Input | None = None, limits: Limits | None = None,
    ) -> AsyncCommandHandle: ...  # fmt: skip

    async def run(
        self, cmd: Command, *, background: bool = False, timeout: float | None = None,
        cwd: PathLike | None = None, env: Mapping[str, str] | None = None,
        user: str | int | None = None, on_stdout: Heard | None = None,
        on_stderr: Heard | None = None, stdin: Input | None = None, limits: Limits | None = None,
    ) -> CommandResult | AsyncCommandHandle:  # fmt: skip
        """Run a command: text for /bin/sh, or a program with its arguments.

        To its end, or, in the `background`, as a handle. `timeout` is in seconds; `user` a name of
        the sandbox's /etc/passwd, a number, or "USER:GROUP"; `stdin` is written to its standard
        input, without which it reads nothing (in the background: what `send_stdin` gives).
        `on_stdout` and `on_stderr` hear text as it comes, while somebody waits; what goes there is
        not collected. What it starts and leaves running goes on, unless it has `limits`.

        Raises: CommandNotStarted, SandboxEnded, SandboxError if it is paused; where it waits,
        LimitExceeded.
        """
        spec = Spec(cmd, env, cwd, timeout, limits)
        interactive = background and stdin is None
        handle = await self._start(spec, user, has_input=stdin is not None or interactive)
        try:
            if stdin is not None:
                handle.feed(stdin)
            if on_stdout is not None:
                handle.hear(handle.stdout, on_stdout)
            if on_stderr is not None:
                handle.hear(handle.stderr, on_stderr)
            if background:
                return handle
            return await handle.wait()
        except BaseException:
            handle.close()
            raise

    async def connect(self, pid: int) -> AsyncCommandHandle:
        """In a fork: a command that was running in the sandbox that it is a copy of, by its number
        there. What it has read and written before is not there any more; closing the handle ends
        it. Raises: CommandNotStarted, SandboxEnded."""
        theirs: list[int] = []
        ours: list[int] = []
        try:
            _add_pipes(theirs, ours, has_input=True)
            wire, _ = await asked(self._path, Request("attach", pid=pid), theirs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        spec = Spec(str(pid), None, None, None, None)
        return AsyncCommandHandle(wire, spec, pid, (ours[0], ours[1], ours[2]))

    async def _start(
        self, spec: Spec, user: str | int | None, *, has_input: bool
    ) -> AsyncCommandHandle:
        account = await files.account(self._path, self._user if user is None else user)
        theirs: list[int] = []
        ours: list[int] = []
        try:
            _add_pipes(theirs, ours, has_input=has_input)
            wire, pid = await start(self._path, spec.process(account), theirs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        return AsyncCommandHandle(wire, spec, pid, (ours[0], ours[1], ours[2]))


def _add_pipes(theirs: list[int], ours: list[int], *, has_input: bool) -> None:
    """For standard streams: the program's ends, and ours; as many as there are, where that fails.

    Raises: OSError.
    """
    if has_input:
        out, into = pipe()
        theirs.append(out)
        ours.append(into)
    else:
        theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        ours.append(-1)
    for _ in range(2):
        out, into = pipe()
        theirs.append(into)
        ours.append(out)


async def start(
    path: str, process: ExecProcess, fds: Sequence[int]
) -> tuple[AsyncWire, int]:
    """Have a process started: the connection that it lives as long as, and its number.

    Raises: CommandNotStarted, SandboxEnded.
    """
    return await asked(path, Request("exec", process=process), fds)


async def asked(path: str, request: Request, fds: Sequence[int]) -> tuple[AsyncWire, int]:
    """The same for a request that makes this a process's connection."""
    wire = await AsyncWire.connect(path)
    try:
        await wire.send(request, fds)
        reply = await wire.reply()
        if reply.error == STOPPED:
            raise SandboxEnded(STOPPED)
        if reply.error.startswith(PAUSED):
            raise SandboxError("the sandbox is paused")
        if reply.error:
            raise CommandNotStarted(reply.error)
    except BaseException:
        wire.close()
        raise
    return wire, reply.pid


def close_all(fds: Iterable[int]) -> None:
    """Those that there are."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
