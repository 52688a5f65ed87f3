"""The bytes of a connection that a broker has: between a program's socket and a stream of the host.

The program's socket is connected to an `End`, as within the sandbox. Of the stream only bytes are
read and written: descriptors that a broker might send are closed by the host's kernel, since
read(2) takes none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.poll import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from sentry.abi.socket import BPF_TCP_LISTEN as TCP_LISTEN
from sentry.abi.socket import IPPROTO_TCP, SHUT_WR
from sentry.errors import EAGAIN, ECONNABORTED, EPIPE, Errno, from_host
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.net.egress.limits import Way
from sentry.net.host import calls
from sentry.net.inet.tcp import TcpSocket
from sentry.net.sockfs import new_location
from sentry.net.tcp.core import nothing
from sentry.suppress import suppress
from sentry.vfs.interface import Owner
from sentry.wait.fiber import TimedOut, loosen
from sentry.wait.host_queue import HostQueue
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until

if TYPE_CHECKING:
    from sentry.net.egress.flows import Flow, Flows
    from sentry.net.inet.address import Endpoint
    from sentry.net.inet.tcp_listener import TcpListener
    from sentry.net.inet.time_wait import Remains
    from sentry.net.stack import Stack
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

PIECE: Final = 1 << 16
"""Bytes on their way in each direction, besides what sockets hold."""
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR
WRITABLE: Final = EPOLLOUT | EPOLLHUP | EPOLLERR
NAME: Final = "broker"


class End(TcpSocket):
    """The kernel's end of such a connection: at no port, no program has it, so none is shown."""

    __slots__ = ("_made", "on_left")

    def __init__(self, location: Location, family: int, protocol: int, stack: Stack) -> None:
        super().__init__(location, family, protocol, stack)
        self._made: list[End] = []
        self.on_left: Callable[[], object] = nothing
        """The program's socket is closed, or has sent a reset."""

    @classmethod
    def open(cls, stack: Stack, family: int) -> End:
        """One to which others are made."""
        end = cls(new_location(stack.kernel.vfs, Owner(0, 0)), family, IPPROTO_TCP, stack)
        end.state = TCP_LISTEN
        return end

    def to(self, caller: Caller, client: TcpListener, target: Endpoint) -> End:
        """The other end of a program's socket, which is connected from now on."""
        self._establish(caller, client, target)
        return self._made.pop()

    def can_accept(self, server: Any) -> None:
        """A connection is complete."""
        server.drop_port()
        self._made.append(server)

    def was_sent(self, caller: Caller, size: int) -> None:
        """They leave the sandbox."""
        self.count_sent(caller, size)

    def _remain(self, state: int, seconds: int) -> Remains | None:
        """Its address is nobody's here, and held by nobody."""
        return None

    def other_end_closed(self) -> None:
        """The last descriptor of the program's socket is closed."""
        self.on_left()

    def got_reset(self) -> None:
        """The program has reset the connection."""
        super().got_reset()
        self.on_left()


class Stream:
    """One connection. Its flow is ended with it."""

    def __init__(
        self, end: End, fd: int, flows: Flows, flow: Flow, gone: Callable[[], object]
    ) -> None:
        """`fd`: connected, and does not block; it is this one's from now on. `gone`: it is over."""
        self._end = end
        self._fd = fd
        self._flows = flows
        self._flow = flow
        self._gone = gone
        self._loop: Any = end.stack.kernel.loop
        self._host = HostQueue(self._loop, fd, True)
        self._stopped = WaitQueue()
        """Who waits for the broker, or for time to pass, hears here that all is over."""
        self._is_over = False
        self._is_refused = False
        """The broker takes nothing more; what it has said still goes to the program."""
        self._ways = 2
        end.on_left = self._left
        self._loop.spawn(self._goes(self._outwards()), NAME)
        self._loop.spawn(self._goes(self._inwards()), NAME)

    def reset(self, number: int = 0) -> None:
        """Both sides hear that it is over, the program by this errno if it is not 0."""
        if self._is_over:
            return
        self._is_over = True
        client = self._end.peer
        self._end.abort()
        if client is not None and number:
            client.so_error = number
        self._end.queue.notify()
        self._host.notify()
        self._stopped.notify()

    def _left(self) -> None:
        self._end.queue.notify()
        self._host.notify()

    async def _goes(self, way: Coroutine[Any, Any, None]) -> None:
        try:
            await way
        except Errno as error:  # one of the two has gone
            self.reset()
            loosen(error)
        self._ways -= 1
        if not self._ways:
            self._close()

    def _close(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._end.release()
        self._end.on_left = nothing
        self._host.close()
        os.close(self._fd)
        self._flows.ended(self._flow)
        self._gone()

    def _check(self) -> None:
        if self._is_over:
            raise ECONNABORTED("it is over")

    # --- to the broker

    async def _outwards(self) -> None:
        while data := await until(self._take, (self._end.queue,)):
            await self._pace(Way.OUT, len(data))
            rest = memoryview(data)
            while rest:
                write = partial(self._write, rest)
                done = await until(write, (self._host, self._stopped), WRITABLE)
                if not done:
                    self._refused()
                    return
                rest = rest[done:]
        with suppress(Errno):
            calls.shutdown(self._fd, SHUT_WR)

    def _take(self) -> bytes:
        """What the program has sent; nothing at its end. Raises: EAGAIN, ECONNRESET."""
        self._check()
        dest = KernelDest(PIECE)
        self._end.try_receive(dest, 0)
        return bytes(dest.data)

    def _write(self, data: memoryview) -> int:
        """How much of it went; 0: the broker has closed."""
        self._check()
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            self._host.arm(EPOLLOUT)
            raise EAGAIN("no room") from None
        except OSError:
            return 0

    def _refused(self) -> None:
        self._is_refused = True
        if self._end.write_shut:
            raise EPIPE("both directions are over")

    # --- to the program

    async def _inwards(self) -> None:
        caller: Any = None  # nothing is held back, so nobody has to be asked for
        while data := await until(self._read, (self._host,), READABLE):
            await self._pace(Way.IN, len(data))
            source = KernelSource(data)
            while source.count:
                await until(partial(self._give, caller, source), (self._end.queue,))
        if self._is_refused:
            raise EPIPE("both directions are over")
        with suppress(Errno):  # the program may have left
            self._end.shut(SHUT_WR)

    def _read(self) -> bytes:
        """What the broker says; nothing at its end. Raises: EAGAIN, ECONNRESET."""
        self._check()
        if self._end.refused_writes:
            return b""
        try:
            return os.read(self._fd, PIECE)
        except BlockingIOError:
            self._host.arm(EPOLLIN)
            raise EAGAIN("nothing there") from None
        except OSError as error:
            raise from_host(error) from None

    def _give(self, caller: Any, source: KernelSource) -> None:
        self._check()
        self._end.try_send(caller, source, None, 0, None)

    # --- limits

    async def _pace(self, way: Way, count: int) -> None:
        """Until so many bytes may move. Raises: ECONNABORTED, of which the program hears."""
        while True:
            self._check()
            now_ns = time.monotonic_ns()
            wait_ns = None
            if self._flows.goes_on(self._flow, now_ns):
                wait_ns = self._flows.move(self._flow, way, count, now_ns)
            if wait_ns is None:
                self.reset(ECONNABORTED.number)
                raise ECONNABORTED("the policy")
            if not wait_ns:
                return
            deadline_ns = self._loop.now_ns() + wait_ns
            try:
                await until(self._until_over, (self._stopped,), deadline_ns=deadline_ns)
            except TimedOut as time_is_up:
                loosen(time_is_up)

    def _until_over(self) -> None:
        if not self._is_over:
            raise EAGAIN("it goes on")
