"""The host's kernel at the other end: a TUN device in a network namespace of its own.

Packets have a header of IPv4 that is made here, and one of virtio before it, as an uplink has it.
The bridge between the two may drop what it likes (`lose`), and hold or double it (`carry`).
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sentry.abi.socket import IPPROTO_TCP, SIOCSIFFLAGS
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.connection import Connection
from sentry.net.tcp.endpoints import Endpoints
from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.listener import Listener
from sentry.net.tcp.segment import Arrived, Outgoing, parse
from sentry.net.tcp.settings import Tuning
from tests.unit.net.tcp.pair import packets, shared

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
SIOCSIFADDR = 0x8916
SIOCSIFNETMASK = 0x891C
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 1, 2
IFF_UP_RUNNING = 0x41
NEEDS_CSUM = 1
GSO_TCPV4 = 1
VNET = struct.Struct("<BBHHHH")
IP4 = struct.Struct(">BBHHHBBH4s4s")
THEIRS = "10.9.0.1"
OURS = "10.9.0.2"
MTU = 1500
PATIENCE_S = 60


def endpoint(ip: str, port: int) -> Endpoint:
    return Endpoint(MAPPED + socket.inet_aton(ip), port)


def folded(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Kernel:
    """A host of ours beside the kernel's. Preconditions: a network namespace of this thread."""

    def __init__(self, *, cut: bool = False, **settings: object) -> None:
        self.cut = cut
        self.shared = shared(os.urandom(16), **settings)
        self.endpoints = Endpoints(self.shared)
        self.connections: list[Connection] = []
        self.listeners: list[Listener] = []
        self.lose: Callable[[bool, Arrived], bool] = lambda is_ours, seg: False
        self.carry: Callable[[bool, Callable[[], None]], None] = lambda is_ours, deliver: deliver()
        """Whether it is from us, and what brings it to the other side."""
        self.is_damaged: Callable[[], bool] = lambda: False
        """Of a packet of ours, whose checksum is wrong then."""
        self.sockets: list[socket.socket] = []
        self.seen: list[tuple[bool, Arrived]] = []
        """(whether it is from us, segment)."""
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"wire", flags))
        fcntl.ioctl(self.tun, TUNSETOFFLOAD, 0 if cut else TUN_F_CSUM | TUN_F_TSO4)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, ip in ((SIOCSIFADDR, THEIRS), (SIOCSIFNETMASK, "255.255.255.0")):
                name = struct.pack("16sHH4s8x", b"wire", socket.AF_INET, 0, socket.inet_aton(ip))
                fcntl.ioctl(control, request, name)
            up = struct.pack("16sH14x", b"wire", IFF_UP_RUNNING)
            fcntl.ioctl(control, SIOCSIFFLAGS, up)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        os.close(self.tun)

    @property
    def now(self) -> int:
        return time.monotonic_ns()

    # --- ends

    def socket(self) -> socket.socket:
        """One of the kernel's."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def kernel_listens(self, port: int = 8000, backlog: int = 16) -> socket.socket:
        made = self.socket()
        made.bind((THEIRS, port))
        made.listen(backlog)
        return made

    def listen(self, port: int = 9000, tuning: Tuning | None = None, backlog: int = 16) -> Listener:
        made = Listener(self.shared, backlog, tuning)
        self.endpoints.listeners[endpoint(OURS, port)] = made
        self.listeners.append(made)
        return made

    def connection(self, port: int = 8000, tuning: Tuning | None = None) -> Connection:
        local = endpoint(OURS, 40000 + len(self.connections))
        made = Connection(Flow(local, endpoint(THEIRS, port)), self.shared, MTU, tuning)
        self.connections.append(made)
        self._send(self.endpoints.connect(self.now, made))
        return made

    def ours_connects(self, tuning: Tuning | None = None) -> tuple[Connection, socket.socket]:
        """A connection that we have made."""
        listening = self.kernel_listens()
        made = self.connection(tuning=tuning)
        found: list[socket.socket] = []
        self.until(lambda: made.connected and self._accept(listening, found))
        return made, found[0]

    def _accept(self, listening: socket.socket, found: list[socket.socket]) -> bool:
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            return False
        accepted.setblocking(False)
        self.sockets.append(accepted)
        found.append(accepted)
        return True

    def theirs_connects(self, tuning: Tuning | None = None) -> tuple[Connection, socket.socket]:
        """A connection that the kernel has made."""
        listener = self.listen(tuning=tuning)
        sock = self.socket()
        sock.connect_ex((OURS, 9000))
        self.until(lambda: bool(listener.accepted))
        made = listener.accept()
        assert made is not None
        self.connections.append(made)
        return made, sock

    # --- the wire

    def _send(self, found: list[tuple[Flow, Outgoing]]) -> None:
        for flow, made in found:
            if self.cut:
                for seg in packets(made):
                    if not self._is_lost(True, seg):
                        self.carry(True, partial(self._write, flow, rebuilt(made, seg), 0))
                continue
            data = made.header + b"".join(made.pieces)
            seg = parse(data)
            assert seg is not None
            if not self._is_lost(True, seg):
                self.carry(True, partial(self._write, flow, data, made.gso_size))

    def _is_lost(self, is_ours: bool, seg: Arrived) -> bool:
        self.seen.append((is_ours, seg))
        if len(self.seen) > 10_000:
            del self.seen[:5000]
        return self.lose(is_ours, seg)

    def _write(self, flow: Flow, data: bytes, gso_size: int) -> None:
        source, destination = flow.local.ip[12:], flow.remote.ip[12:]
        pseudo = folded(source + destination + struct.pack(">HH", IPPROTO_TCP, len(data)))
        head = bytearray(data[:20])
        head[16:18] = pseudo.to_bytes(2)
        ip = bytearray(
            IP4.pack(0x45, 0, 20 + len(data), 0, 0x4000, 64, IPPROTO_TCP, 0, source, destination)
        )
        ip[10:12] = (~folded(bytes(ip)) & 0xFFFF).to_bytes(2)
        size = 20 + (data[12] >> 4) * 4
        kind = GSO_TCPV4 if gso_size else 0
        flags = 0 if self.is_damaged() and not kind else NEEDS_CSUM
        virtio = VNET.pack(flags, kind, size if kind else 0, gso_size, 20, 16)
        with suppress(BlockingIOError):  # as lost as on any wire
            os.write(self.tun, virtio + bytes(ip) + bytes(head) + data[20:])

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data = os.read(self.tun, 70000)
            except BlockingIOError:
                return
            packet = memoryview(data)[VNET.size :]
            if packet[0] != 0x45 or packet[9] != IPPROTO_TCP:
                continue
            end = int.from_bytes(packet[2:4])
            seg = parse(bytes(packet[20:end]))
            assert seg is not None
            if self._is_lost(False, seg):
                continue
            remote = Endpoint(MAPPED + bytes(packet[12:16]), seg.source_port)
            local = Endpoint(MAPPED + bytes(packet[16:20]), seg.destination_port)
            self.carry(False, partial(self._arrives, Flow(local, remote), seg))

    def _arrives(self, flow: Flow, seg: Arrived) -> None:
        self._send(self.endpoints.segment(self.now, flow, seg, MTU))

    # --- time

    def _timers(self) -> int | None:
        """Do what is due; when there is more."""
        now = self.now
        for one in (*self.endpoints.connections.values(), *self.listeners):
            if (at := one.timer()) is not None and at <= now:
                one.timeout(now)
        for listener in self.listeners:
            self._send(listener.take())
        for made in list(self.endpoints.connections.values()):
            while sent := self.endpoints.settle(now, made):
                self._send(sent)
        times = [one.timer() for one in (*self.endpoints.connections.values(), *self.listeners)]
        return min((at for at in times if at is not None), default=None)

    def until(self, is_done: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Let packets and time pass until something is so."""
        end = time.monotonic() + seconds
        while True:
            self._receive()
            if is_done():
                self._timers()
                return
            at = self._timers()
            assert time.monotonic() < end, "it does not come to be so"
            wait_s = 0.02 if at is None else min(max((at - self.now) / 1e9, 0), 0.02)
            select.select([self.tun], [], [], wait_s)


def rebuilt(made: Outgoing, seg: Arrived) -> bytes:
    """The bytes of one of the packets that a segment was cut into."""
    head = bytearray(made.header)
    head[4:8] = seg.seq.to_bytes(4)
    head[13] = seg.flags
    return bytes(head) + bytes(seg.payload)


def sent(sock: socket.socket, data: bytes) -> int:
    """How much the kernel takes now."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def received(sock: socket.socket, size: int = 1 << 20) -> bytes | None:
    """What the kernel has now; None: nothing yet."""
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None
