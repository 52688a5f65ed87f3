"""Hosts with TCP sockets on a wire."""

from __future__ import annotations

import inspect
import socket
import struct
from functools import partial
from types import SimpleNamespace
from typing import Any

from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_TCP
from sentry.auth.credentials import Credentials
from sentry.errors import EINPROGRESS
from sentry.kernel.services import Services
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.net.inet import leaving, tcp_link
from sentry.net.inet.tcp import TcpSocket
from sentry.net.link.uplink import Uplink
from sentry.net.sockfs import socket_location
from sentry.net.stack import Stack
from sentry.vfs.vfs import Vfs
from tests.unit.net.wired import INDEX, Host, Wire, ip4, ip6


class Streams(Host):
    """A host whose programs have sockets."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.soon: list[Any] = []
        self.signals: list[int] = []
        loop = SimpleNamespace(call_soon=self.soon.append, now_ns=lambda: 0)
        kernel = SimpleNamespace(vfs=Vfs(None, None, lambda: 0), services=Services(), loop=loop)
        stack = self.stack = Stack(kernel, self.sysctls)
        stack.interfaces, stack.routes, stack.ip = self.interfaces, self.routes, self.layer
        leaving.plug(stack)
        tcp_link.plug(stack)
        assert stack.tcp is not None
        self.tcp = stack.tcp
        self.link.on_room = partial(self.layer.on_room, INDEX)
        self.caller: Any = SimpleNamespace(
            kernel=kernel, creds=Credentials(), group=SimpleNamespace(tgid=1, job=None), net=stack,
            ns=SimpleNamespace(net=stack), send_signal=self.signals.append,
        )  # fmt: skip

    def socket(self, family: int = AF_INET) -> Any:
        """A new one."""
        location = socket_location(self.caller)
        return TcpSocket(location, family, IPPROTO_TCP, self.stack).incref()

    def listen(self, port: int, family: int = AF_INET, backlog: int = 8, ip: bytes = b"") -> Any:
        """One that listens."""
        made = self.socket(family)
        done(made.bind(self.caller, place(ip or bytes(4 if family == AF_INET else 16), port)))
        made.listen(self.caller, backlog)
        return made

    def begin(self, sock: Any, to: bytes) -> None:
        """connect(2), which goes on."""
        try:
            done(sock.connect(self.caller, to, True))
        except EINPROGRESS:
            pass
        else:
            raise AssertionError("it is connected")

    def accept(self, listener: Any) -> Any:
        """The next one."""
        made, _ = listener.try_accept(self.caller)
        return made.incref()

    def send(self, sock: Any, data: bytes, flags: int = 0, target: Any = None) -> int:
        """As much as goes."""
        return int(sock.try_send(self.caller, KernelSource(data), target, flags, None))

    def option(self, sock: Any, level: int, name: int, value: int) -> None:
        """setsockopt(2)."""
        sock.set_option(self.caller, level, name, struct.pack("<i", value))


class Line(Wire):
    """The wire of such hosts."""

    hosts: tuple[Any, ...]

    def __init__(self, *hosts: Streams) -> None:
        super().__init__(*hosts)
        for host in hosts:
            host.tcp.clock = lambda: self.now_ns

    def connected(self, family: int = AF_INET, backlog: int = 8) -> tuple[Any, Any, Any]:
        """A listener of the second host, and both ends of a connection."""
        left, right = self.hosts[:2]
        listener, client = right.listen(8080, family, backlog), left.socket(family)
        ip = ip4(right.number) if family == AF_INET else ip6(right.number)
        left.begin(client, place(ip, 8080))
        self.settle()
        return listener, client, right.accept(listener)


class Card:
    """An uplink of a host, whose frames are brought."""

    def __init__(self, line: Line, host: Streams) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready: Any = None
        loop = SimpleNamespace(
            now_ns=lambda: line.now_ns, call_soon=lambda callback: None, watch=self._watch
        )
        Uplink(self._ours.fileno(), host.link, loop, lambda: None)

    def _watch(self, fd: int, events: int, callback: Any = None) -> None:
        self._ready = callback

    def hear(self, *frames: bytes) -> None:
        """They come in one batch."""
        for each in frames:
            self._theirs.send(each)
        self._ready(EPOLLIN)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class ByUplink(Line):
    """The same by uplinks: segments of connections that are known go straight to them."""

    def __init__(self, *hosts: Streams) -> None:
        super().__init__(*hosts)
        self.cards = {host: Card(self, host) for host in hosts}

    def bring(self, host: Any, frame: bytes) -> None:
        self.cards[host].hear(frame)

    def close(self) -> None:
        for card in self.cards.values():
            card.close()


def place(ip: bytes, port: int) -> bytes:
    """struct sockaddr_in, sockaddr_in6."""
    if len(ip) == 4:
        return struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, ip)
    return struct.pack("<H", AF_INET6) + struct.pack(">H4x16s4x", port, ip)


def receive(sock: Any, size: int = 1 << 20, flags: int = 0) -> bytes:
    """As much as there is."""
    dest = KernelDest(size)
    got = sock.try_receive(dest, flags)
    assert got.count == len(dest.data)
    return bytes(dest.data)


def done(result: Any) -> Any:
    """What an operation gives that does not have to wait."""
    assert not inspect.iscoroutine(result)
    return result
