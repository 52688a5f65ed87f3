"""`Forward`: a connection that the command line makes to a port inside, for `runsc port-forward`.

The socket is the container's, made and connected as a program of it would make it. Its bytes go
through two pipes of the command line's, one each way, so that each way can end by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from sentry.abi.fcntl import O_RDONLY, O_WRONLY
from sentry.abi.socket import AF_INET, AF_INET6, MSG_NOSIGNAL, SHUT_WR, SOCK_STREAM
from sentry.control.descriptors import check, close_all
from sentry.control.outside import beside_init
from sentry.control.protocol import DEFECT
from sentry.errors import ECONNREFUSED, EINVAL, EPIPE, Errno
from sentry.fs.host.file import HostFile, donated
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.net.family import make_socket
from sentry.net.inet.address import LOOPBACK4, LOOPBACK6, Endpoint, pack
from sentry.net.inet.tcp_ending import TcpEnding
from sentry.wait.again import again
from sentry.wait.fiber import Fiber, Killed, Mode

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.net.socket import Socket

PIECE: Final = 1 << 16
LOOPBACK: Final = ((AF_INET, LOOPBACK4), (AF_INET6, LOOPBACK6))
Done = Callable[[str], object]


class Forward:
    """One connection. `told` hears "" when it is made, or why not.

    Raises: EINVAL, ESRCH; the descriptors belong to it from the start.
    """

    def __init__(
        self, kernel: Kernel, container: Container, fds: list[int], port: int, told: Done
    ) -> None:
        self._kernel = kernel
        self._told = told
        self._fibers: list[Fiber] = []
        self._socket: Socket | None = None
        self._files: list[HostFile] = []
        try:
            if len(fds) != 2 or not 0 < port < 1 << 16:
                raise EINVAL("two pipes and a port")
            for fd in fds:
                check(fd)
            self._caller = beside_init(container)
        except Errno:
            close_all(fds)
            raise
        self._port = port
        for fd, flags in zip(fds, (O_RDONLY, O_WRONLY), strict=True):
            file = donated(kernel.vfs, fd, flags, closes=True)
            file.incref()
            self._files.append(file)
        self._spawn(self._connect(), self._connected)

    def look(self) -> None:
        """Nothing is there at once."""

    def abandon(self) -> None:
        """The command line is gone."""
        for fiber in list(self._fibers):
            fiber.interrupt(Killed(), Mode.KILLABLE)

    def _spawn(
        self,
        coro: Coroutine[Any, Any, None],
        done: Callable[[BaseException | None], None],
    ) -> None:
        def ended(_: object, error: BaseException | None) -> None:
            self._fibers.remove(fiber)
            if error is not None and not isinstance(error, (Errno, Killed)):
                self._kernel.log.bug("port-forward", error)
            done(error)

        fiber = self._kernel.loop.spawn(coro, "port-forward", ended)
        self._fibers.append(fiber)

    async def _connect(self) -> None:
        refused = None
        for family, ip in LOOPBACK:
            sock = cast("Socket", await again(make_socket, self._caller, family, SOCK_STREAM, 0))
            sock.incref()
            try:
                address = pack(Endpoint(ip, self._port), family)
                await again(sock.connect, self._caller, address, False)
            except ECONNREFUSED as error:
                sock.decref()
                refused = error
            except BaseException:
                sock.decref()
                raise
            else:
                self._socket = sock
                return
        assert refused is not None
        raise refused

    def _connected(self, error: BaseException | None) -> None:
        if error is not None:
            self._close()
            self._told(f"port {self._port}: {error.why() if isinstance(error, Errno) else DEFECT}")
            return
        self._spawn(self._inwards(), self._way_ended)
        self._spawn(self._outwards(), self._way_ended)
        self._told("")

    async def _inwards(self) -> None:
        """What the command line has, to its end."""
        sock, given = self._socket, self._files[0]
        assert sock is not None
        while True:
            dest = KernelDest(PIECE)
            await again(given.read, self._caller, dest)
            if not dest.data:
                sock.shutdown(SHUT_WR)
                return
            source = KernelSource(dest.data)
            try:
                await again(sock.send_message, self._caller, source, None, MSG_NOSIGNAL, None)
            except EPIPE:  # the program has closed it; what it has said before still goes out
                return

    async def _outwards(self) -> None:
        """What the program has; at its end the pipe is closed. Nobody waits for the command line
        then, where the program has closed its socket: what comes is the host's to refuse."""
        sock, target = self._socket, self._files[1]
        assert sock is not None
        while True:
            dest = KernelDest(PIECE)
            await again(sock.read, self._caller, dest)
            if not dest.data:
                self._files.pop().decref()
                if isinstance(sock, TcpEnding) and sock.refused_writes:
                    self.abandon()
                return
            source = KernelSource(dest.data)
            while source.count:
                await again(target.write, self._caller, source)

    def _way_ended(self, error: BaseException | None) -> None:
        """When both ways have ended, or one of them in an error, all is over."""
        if error is not None:
            self.abandon()
        if not self._fibers:
            self._close()

    def _close(self) -> None:
        files, self._files = self._files, []
        for file in files:
            file.decref()
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.decref()

