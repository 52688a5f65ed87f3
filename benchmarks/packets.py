"""What Python spends on packets of its own stack: the best of many short runs, in microseconds.

    python benchmarks/packets.py [interpreted] [WORD …]

A program of a world without a machine has a TCP connection by a link, whose other end is written
down here; frames go by a pair of sockets that stands for a packet socket. The system calls of the
program and the turns of the loop count, what the other end does does not. Modules that were
compiled ahead (`ci/ahead`) are used where they are newer than their sources.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runsc.launch import ahead

if "interpreted" not in sys.argv:
    ahead.install()

from sentry.abi import netlink as abi
from sentry.abi import unistd as nr
from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_WRONLY
from sentry.abi.poll import EPOLL_CTL_ADD, EPOLLIN
from sentry.abi.socket import AF_INET, SO_SNDBUFFORCE, SOCK_DGRAM, SOCK_STREAM
from sentry.net import made
from sentry.net.interfaces import Address, Interface
from sentry.net.ip.checksum import checksum
from sentry.net.link.link import EthernetLink
from sentry.net.link.timing import Timing
from sentry.net.link.uplink import Uplink
from sentry.syscalls import late
from sentry.wait.steps import at_once
from tests.caller import AREA
from tests.world import World

INDEX: Final = 2
OURS, THEIRS = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
MAC_OURS, MAC_THEIRS = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
PORT: Final = 80
LISTENED: Final = 81
BUFFER: Final = AREA + 0x10000
SIZE: Final = 0x40000
FIN, SYN, PSH, ACK = 1, 2, 8, 16
MASK: Final = 0xFFFFFFFF
RUNS: Final = 150
TURNS: Final = 20
LARGE: Final = 62264
"""Bytes of a large segment: 43 packets of 1,448."""
SMALL: Final = 1448
REQUEST, ANSWER = b"x" * 98, 1000
HEAD, PAGE = 239, 400
PATH_AT, STAT_AT, VECTOR_AT = BUFFER + 0x30000, BUFFER + 0x30100, BUFFER + 0x30200
PEER_AT: Final = BUFFER + 0x30300
GOOD: Final = struct.pack("<BBHHHH", 2, 0, 0, 0, 0, 0)
"""A virtio header: the checksum need not be looked at."""


class Bench(World):
    """A program, and what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.unwatch()
        self.devices()
        self.task = self.program()
        self.task.write(BUFFER, bytes(SIZE))
        self.net = net = self.task.task.ns.net.stack
        layer = made.plug_in(net)
        up = abi.IFF_UP | abi.IFF_RUNNING | abi.IFF_LOWER_UP
        card = Interface(INDEX, "eth0", abi.ARPHRD_ETHER, up, 1500, MAC_OURS)
        card.addresses = [
            Address(AF_INET, OURS, 24, abi.RT_SCOPE_UNIVERSE, "eth0", b"\x0a\0\0\xff")
        ]
        net.interfaces.insert(card)
        self.link = link = EthernetLink(INDEX, MAC_OURS, layer, 0)
        layer.links[INDEX] = link
        link.neighbours4.set_static(THEIRS, MAC_THEIRS)
        ours, self.wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.wire):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 24)
        self.ours = ours
        self.uplink = Uplink(ours.fileno(), link, self.loop, Timing(layer, self.loop).after)
        at_once(layer.refresh(net.routes))
        self.spent_ns = 0
        self.clients = 1024
        self.their_port = PORT
        self.seq = 1000
        self.got = 0
        """What the other end has of ours: its acknowledgement."""
        self.stamp = self.echo = 0
        """Its clock, and ours as it has heard."""

    # --- the program

    def call(self, number: int, *arguments: int) -> int:
        """To its end."""
        context = self.task.context
        context.load(number, arguments)
        begun_ns = time.perf_counter_ns()
        self.task.task.on_exit(context)
        while context.result is None:
            self.loop.turn()
        self.spent_ns += time.perf_counter_ns() - begun_ns
        return int(context.result)

    def begin(self, number: int, *arguments: int) -> None:
        """To its sleep."""
        self.task.context.load(number, arguments)
        begun_ns = time.perf_counter_ns()
        self.task.task.on_exit(self.task.context)
        self.spent_ns += time.perf_counter_ns() - begun_ns

    def turns(self) -> None:
        """What has come, and what is to go."""
        begun_ns = time.perf_counter_ns()
        self.loop.call_soon(int)
        self.loop.turn()
        while self.loop._soon or self.loop._ready:
            self.loop.turn()
        self.spent_ns += time.perf_counter_ns() - begun_ns

    # --- the other end

    def say(self, flags: int, payload: bytes = b"", options: bytes = b"", gso: int = 0) -> None:
        """A segment, of any size."""
        self.stamp += 1
        if not options:
            options = struct.pack(">BBBBII", 1, 1, 8, 10, self.stamp & MASK, self.echo)
        size = 20 + len(options)
        tcp = struct.pack(
            ">HHIIBBHHH", self.their_port, self.port, self.seq & MASK, self.got & MASK, size << 2,
            flags, 0xFFF0, 0, 0,
        )  # fmt: skip
        total = 20 + size + len(payload)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0, 0x4000, 64, 6, 0, THEIRS, OURS)
        ip = ip[:10] + checksum(ip).to_bytes(2) + ip[12:]
        head = GOOD if not gso else struct.pack("<BBHHHH", 2, 1, 66, gso, 0, 0)
        frame = head + MAC_OURS + MAC_THEIRS + b"\x08\0" + ip + tcp + options
        self.wire.send(frame + payload)
        self.seq += len(payload) + bool(flags & (SYN | FIN))

    def hear(self) -> int:
        """All that has been sent: how many bytes of payload."""
        count = 0
        while True:
            try:
                frame = self.wire.recv(1 << 17)
            except BlockingIOError:
                return count
            if frame[22:24] != b"\x08\0" or frame[33] != 6:
                continue
            self.port, _, seq, _ack, offset, flags = struct.unpack_from(">HHIIBB", frame, 44)
            (self.echo,) = struct.unpack_from(">I", frame, 72 if flags & SYN else 68)
            size = len(frame) - 44 - (offset >> 4) * 4
            count += size
            self.got = seq + size + bool(flags & (SYN | FIN))

    def connected(self) -> int:
        """A socket that is."""
        fd = self.call(nr.socket, AF_INET, SOCK_STREAM | 0o4000, 0)
        self.task.write(BUFFER, struct.pack("<H", AF_INET) + struct.pack(">H4s8x", PORT, THEIRS))
        self.call(nr.connect, fd, BUFFER, 16)
        self.turns()
        self.hear()
        self.say(SYN | ACK, options=self.agreed())
        self.turns()
        self.hear()
        return fd

    def agreed(self) -> bytes:
        """The options of its SYN."""
        return struct.pack(">BBHBBBBIIBBBB", 2, 4, 1460, 4, 2, 8, 10, 1, self.echo, 1, 3, 3, 10)

    def bound(self, kind: int) -> int:
        """A socket that has a port."""
        fd = self.call(nr.socket, AF_INET, kind, 0)
        address = struct.pack("<H", AF_INET) + struct.pack(">H12x", LISTENED)
        self.task.write(BUFFER, address)
        assert self.call(nr.bind, fd, BUFFER, 16) == 0
        return fd

    # --- what is measured

    def exchange(self, fd: int, epoll: int) -> None:
        """A program that waits for a request, reads it and answers."""
        self.begin(nr.epoll_wait, epoll, BUFFER, 16, -1 & MASK)
        self.say(ACK | PSH, REQUEST)
        self.turns()
        assert self.task.context.result == 1
        assert self.call(nr.read, fd, BUFFER, 16384) == len(REQUEST)
        assert self.call(nr.write, fd, BUFFER, ANSWER) == ANSWER
        self.turns()
        assert self.hear() == ANSWER

    def page(self, fd: int, epoll: int) -> None:
        """A web server waits for a request, opens a file and answers with it, as nginx does."""
        self.begin(nr.epoll_wait, epoll, BUFFER, 16, -1 & MASK)
        self.say(ACK | PSH, REQUEST)
        self.turns()
        assert self.task.context.result == 1
        assert self.call(nr.recvfrom, fd, BUFFER, 1024, 0, 0, 0) == len(REQUEST)
        file = self.call(nr.openat, AT_FDCWD, PATH_AT, 0)
        assert self.call(nr.fstat, file, STAT_AT) == 0
        assert self.call(nr.pread64, file, BUFFER, PAGE, 0) == PAGE
        assert self.call(nr.writev, fd, VECTOR_AT, 2) == HEAD + PAGE
        assert self.call(nr.close, file) == 0
        self.turns()
        assert self.hear() == HEAD + PAGE

    def make_page(self) -> None:
        """That file."""
        self.task.write(PATH_AT, b"/page\0")
        self.task.write(VECTOR_AT, struct.pack("<QQQQ", BUFFER, HEAD, BUFFER, PAGE))
        file = self.call(nr.openat, AT_FDCWD, PATH_AT, O_CREAT | O_WRONLY, 0o644)
        assert self.call(nr.write, file, BUFFER, PAGE) == PAGE
        assert self.call(nr.close, file) == 0

    def out(self, fd: int) -> None:
        """Two large segments go, and are acknowledged."""
        assert self.call(nr.write, fd, BUFFER, 2 * LARGE) > 0
        self.turns()
        self.hear()
        self.say(ACK)
        self.turns()

    def take(self, fd: int) -> None:
        """They come, and are read."""
        for _ in range(2):
            self.say(ACK | PSH, bytes(LARGE), gso=1448)
            self.turns()
            assert self.call(nr.read, fd, BUFFER, SIZE) == LARGE
            self.turns()
            self.hear()

    def take_three(self, fd: int) -> None:
        """Three come at once."""
        for _ in range(3):
            self.say(ACK | PSH, bytes(LARGE), gso=1448)
            self.stamp -= 1
        self.turns()
        assert self.call(nr.read, fd, BUFFER, SIZE) == 3 * LARGE
        self.turns()
        self.hear()

    def serve(self, listener: int) -> None:
        """A connection comes, asks, is answered and is closed here first, as by a web server."""
        kept = self.port, self.their_port, self.seq, self.got, self.stamp, self.echo
        self.clients += 1
        self.port, self.their_port = LISTENED, self.clients
        self.seq, self.got, self.echo = 1000, 0, 0
        self.say(SYN, options=self.agreed())
        self.turns()
        self.hear()
        self.say(ACK)
        self.turns()
        fd = self.call(nr.accept4, listener, 0, 0, 0)
        self.say(ACK | PSH, REQUEST)
        self.turns()
        assert self.call(nr.read, fd, BUFFER, 16384) == len(REQUEST)
        assert self.call(nr.write, fd, BUFFER, ANSWER) == ANSWER
        assert self.call(nr.close, fd) == 0
        self.turns()
        assert self.hear() == ANSWER
        self.say(ACK | FIN)
        self.turns()
        self.hear()
        self.port, self.their_port, self.seq, self.got, self.stamp, self.echo = kept

    def datagrams_out(self, fd: int) -> None:
        """One goes to whom the socket is connected to, and one by sendto(2)."""
        assert self.call(nr.write, fd, BUFFER, SMALL) == SMALL
        self.turns()
        assert self.call(nr.sendto, fd, BUFFER, SMALL, 0, PEER_AT, 16) == SMALL
        self.turns()
        for _ in range(2):
            assert len(self.wire.recv(1 << 12)) == SMALL + 52

    def datagram(self, fd: int) -> None:
        """One comes, and is read."""
        udp = struct.pack(">HHHH", PORT, LISTENED, 8 + len(REQUEST), 7) + REQUEST
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, THEIRS, OURS)
        ip = ip[:10] + checksum(ip).to_bytes(2) + ip[12:]
        self.wire.send(GOOD + MAC_OURS + MAC_THEIRS + b"\x08\0" + ip + udp)
        self.turns()
        assert self.call(nr.read, fd, BUFFER, 16384) == len(REQUEST)

    def ping(self) -> None:
        """An echo."""
        body = struct.pack(">BBHHH", 8, 0, 0, 7, 7) + bytes(56)
        body = body[:2] + checksum(body).to_bytes(2) + body[4:]
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 84, 0, 0x4000, 64, 1, 0, THEIRS, OURS)
        ip = ip[:10] + checksum(ip).to_bytes(2) + ip[12:]
        self.wire.send(bytes(10) + MAC_OURS + MAC_THEIRS + b"\x08\0" + ip + body)
        self.turns()
        self.wire.recv(1000)

    def best(self, act: Callable[..., None], *arguments: int) -> float:
        """Of many short runs: µs."""
        best = 1e18
        for _ in range(RUNS):
            self.spent_ns = 0
            for _ in range(TURNS):
                act(*arguments)
            best = min(best, self.spent_ns / TURNS)
        return best / 1000


def main(words: list[str]) -> None:
    """Print a line a case."""
    late.import_all()
    with Bench() as bench:
        fd = bench.connected()
        epoll = bench.call(nr.epoll_create1, 0)
        bench.task.write(BUFFER, struct.pack("<IQ", EPOLLIN, 5))
        assert bench.call(nr.epoll_ctl, epoll, EPOLL_CTL_ADD, fd, BUFFER) == 0
        listener, datagrams = bench.bound(SOCK_STREAM), bench.bound(SOCK_DGRAM)
        assert bench.call(nr.listen, listener, 511) == 0
        bench.make_page()
        connected = bench.call(nr.socket, AF_INET, SOCK_DGRAM, 0)
        bench.task.write(PEER_AT, struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 53, THEIRS))
        assert bench.call(nr.connect, connected, PEER_AT, 16) == 0
        cases: dict[str, tuple[Callable[..., None], tuple[int, ...]]] = {
            "request and answer": (bench.exchange, (fd, epoll)),
            "page of a web server": (bench.page, (fd, epoll)),
            "122 KiB out": (bench.out, (fd,)),
            "122 KiB in": (bench.take, (fd,)),
            "182 KiB in at once": (bench.take_three, (fd,)),
            "connection": (bench.serve, (listener,)),
            "2 datagrams out": (bench.datagrams_out, (connected,)),
            "datagram in": (bench.datagram, (datagrams,)),
            "echo": (bench.ping, ()),
        }
        for name, (act, arguments) in cases.items():
            if not words or any(word in name for word in words):
                print(f"{name:20}{bench.best(act, *arguments):8.2f} us", flush=True)


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "interpreted"])
