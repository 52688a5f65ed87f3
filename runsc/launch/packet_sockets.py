"""Packet sockets for the uplinks of a sandbox: packet(7).

They are made while their maker may, and bound to interfaces later, for which no right is needed.
Few, since the kernel waits for all CPUs when one is closed (packet_release()), and that for each:
so what an interface that has gone had is given to the next one.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from runsc import host
from sentry.abi.socket import (
    ETH_P_ALL,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    PACKET_IGNORE_OUTGOING,
    PACKET_OTHERHOST,
    PACKET_VNET_HDR,
    SO_ATTACH_FILTER,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SOL_PACKET,
)
from sentry.bpf import isa
from sentry.bpf.assembler import Assembler, Label
from sentry.net.host.protocol import FIRST_OF_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNT: Final = 8
"""Interfaces that a container may have at a time."""
MAX_STALE: Final = 1 << 14
"""Frames: a receive buffer full of small ones."""
RECEIVE_BUFFER: Final = 8 << 20
SEND_BUFFER: Final = 4 << 20
WHOLE: Final = 0x7FFFFFFF
LINK_HEADER: Final = 14
ANCILLARY: Final = 0xFFFFF000
"""SKF_AD_OFF of <linux/filter.h>, where numbers beside the bytes are."""
PACKET_TYPE, VLAN_TAG, VLAN_PRESENT = ANCILLARY + 4, ANCILLARY + 44, ANCILLARY + 48
VLAN_ID: Final = 0xFFF


def make() -> list[socket.socket]:
    """Some, without an interface. Raises: OSError."""
    return [_make_one() for _ in range(COUNT)]


def _make_one() -> socket.socket:
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | flags, 0)
    made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    _give_room(made, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER)
    _give_room(made, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER)
    code = array.array("B", wanted_frames())
    where, size = code.buffer_info()
    program = struct.pack("@HP", size // isa.INSTRUCTION_SIZE, where)
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    return made


def _give_room(sock: socket.socket, forced: int, plain: int, size: int) -> None:
    """So much, or, for root of a user namespace alone, what the host lets all have."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, size)


class Pool:
    """Sockets, and which interface has which."""

    def __init__(self, all_of_them: Iterable[socket.socket]) -> None:
        self._free = list(all_of_them)
        self._lent: dict[int, socket.socket] = {}

    def lend(self, index: int) -> int:
        """The descriptor of one that is bound to an interface; it stays ours. Raises: OSError."""
        known = self._lent.pop(index, None)
        if known is None and not self._free:
            raise OSError(errno.EMFILE, "no packet socket is left")
        sock = known or self._free.pop()
        try:
            host.bind(sock.fileno(), address_of(index))
        except OSError:
            self._free.append(sock)
            raise
        self._lent[index] = sock
        _drain(sock)
        return sock.fileno()

    def has(self, fd: int) -> bool:
        """It is that of a socket that is lent."""
        return any(sock.fileno() == fd for sock in self._lent.values())

    def give_back(self, index: int) -> None:
        """The interface is nobody's any more."""
        sock = self._lent.pop(index, None)
        if sock is not None:
            self._free.append(sock)


def _drain(sock: socket.socket) -> None:
    """What the interface that had it before has left: frames, and that it has gone (ENETDOWN)."""
    for _ in range(MAX_STALE):
        try:
            sock.recv(64, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                return


def address_of(index: int) -> bytes:
    """struct sockaddr_ll: every frame of an interface."""
    return struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_ALL), index, 0, 0, 0, b"")


def wanted_frames() -> bytes:
    """A filter: ARP and IP, for this host and of no VLAN, but not for the host's own ports."""
    asm = Assembler()
    drop, keep, for_us, untagged = (asm.label() for _ in range(4))
    asm.load(PACKET_TYPE)
    asm.jump(isa.JEQ, PACKET_OTHERHOST, drop, for_us)
    asm.place(for_us)
    asm.load(VLAN_PRESENT)
    tagged, other = asm.label(), asm.label()
    asm.jump(isa.JEQ, 0, untagged, tagged)
    asm.place(tagged)
    asm.load(VLAN_TAG)
    asm.jump(isa.JSET, VLAN_ID, drop, untagged)
    asm.place(untagged)
    asm.emit(isa.LD | isa.H | isa.ABS, 12)
    is_v4, not_v4, is_v6 = asm.label(), asm.label(), asm.label()
    asm.jump(isa.JEQ, ETH_P_IP, is_v4, not_v4)
    asm.place(not_v4)
    asm.jump(isa.JEQ, ETH_P_IPV6, is_v6, other)
    asm.place(other)
    asm.jump(isa.JEQ, ETH_P_ARP, keep, drop)
    asm.place(is_v4)
    _check_protocol(asm, LINK_HEADER + 9, keep)
    asm.emit(isa.LD | isa.H | isa.ABS, LINK_HEADER + 6)
    first = asm.label()
    asm.jump(isa.JSET, 0x1FFF, keep, first)
    asm.place(first)
    asm.emit(isa.LDX | isa.B | isa.MSH, LINK_HEADER)
    asm.emit(isa.LD | isa.H | isa.IND, LINK_HEADER + 2)
    asm.jump(isa.JGE, FIRST_OF_HOST, drop, keep)
    asm.place(is_v6)
    _check_protocol(asm, LINK_HEADER + 6, keep)
    asm.emit(isa.LD | isa.H | isa.ABS, LINK_HEADER + 40 + 2)
    asm.jump(isa.JGE, FIRST_OF_HOST, drop, keep)
    asm.place(drop)
    asm.ret(0)
    asm.place(keep)
    asm.ret(WHOLE)
    return isa.pack(asm.assemble())


def _check_protocol(asm: Assembler, at: int, otherwise: Label) -> None:
    """Go on with TCP and UDP."""
    asm.emit(isa.LD | isa.B | isa.ABS, at)
    has_ports, not_tcp = asm.label(), asm.label()
    asm.jump(isa.JEQ, IPPROTO_TCP, has_ports, not_tcp)
    asm.place(not_tcp)
    asm.jump(isa.JEQ, IPPROTO_UDP, has_ports, otherwise)
    asm.place(has_ports)
