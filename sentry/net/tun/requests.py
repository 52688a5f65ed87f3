"""ioctl(2) on /dev/net/tun: drivers/net/tun.c, __tun_chr_ioctl()."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.abi import socket
from sentry.abi import tun as abi
from sentry.abi.netlink import ARPHRD_ETHER
from sentry.abi.socket import IFNAMSIZ
from sentry.abi.tun import (
    IFF_DETACH_QUEUE,
    IFF_NO_CARRIER,
    IFF_NOFILTER,
    IFF_PERSIST,
    IFF_TAP,
    IFF_TUN,
)
from sentry.bpf.filter import PacketFilter
from sentry.bpf.isa import INSTRUCTION_SIZE, MAX_INSTRUCTIONS
from sentry.errors import EBADFD, EBUSY, EINVAL, EOPNOTSUPP, EPERM
from sentry.net.link.vnet import SIZE as VNET_SIZE
from sentry.net.netlink.notices import set_hardware
from sentry.net.tun import attach
from sentry.net.tun.address_filter import AddressFilter
from sentry.net.tun.interface import FEATURES
from sentry.vfs.requests import INT, Requests
from sentry.wait.again import Keeping, kept

if TYPE_CHECKING:
    from sentry.net.tun.device import TunDevice
    from sentry.net.tun.interface import Tun
    from sentry.vfs.file import Caller, Result

IFREQ_SIZE: Final = 40
ADDRESS_SIZE: Final = 6
NO_ID: Final = 0xFFFFFFFF
MAX_VNET_SIZE: Final = 1 << 16
"""Of a virtio header with what pads it, which stands before each frame: a ceiling of ours."""
CHECKSUM_BITS: Final = abi.TUN_F_CSUM | abi.TUN_F_UFO
SEGMENT_BITS: Final = abi.TUN_F_TSO4 | abi.TUN_F_TSO6
USO_BITS: Final = abi.TUN_F_USO4 | abi.TUN_F_USO6
TYPES: Final = 0xFFFF

REQUESTS: Final = Requests(names=(abi, socket), unknown=EINVAL)
FREE: Final = frozenset(
    {abi.TUNGETFEATURES, abi.TUNSETQUEUE, abi.TUNSETIFF, abi.TUNSETIFINDEX}
)
"""For a device without an interface, too."""


def answer(device: TunDevice, caller: Caller, request: int, argument: int) -> Result:
    """One of them. Raises: EFAULT, EBADFD without an interface, EINVAL for what is none."""
    if request >> 8 & 0xFF == socket.SOCK_IOC_TYPE:
        caller.mm.read(argument, IFREQ_SIZE)
    if request not in FREE and device.tun is None:
        raise EBADFD("no interface")
    result: Result = REQUESTS.answer(device, caller, request, argument)
    return result


def _int(caller: Caller, argument: int) -> int:
    return int(INT.unpack(caller.mm.read(argument, INT.size))[0])


def _teller(name: str, tell: Callable[[Tun], int]) -> None:
    def get(device: TunDevice, caller: Caller, argument: int) -> None:
        caller.mm.write(argument, INT.pack(tell(device.attached)))

    REQUESTS.row(name, get)


# --- the device and its interface


@REQUESTS.handles("TUNGETFEATURES")
def _features(device: TunDevice, caller: Caller, argument: int) -> None:
    caller.mm.write(argument, INT.pack(IFF_TUN | IFF_TAP | IFF_NO_CARRIER | FEATURES))


@REQUESTS.handles("TUNSETIFF", partial="IFF_NAPI and IFF_ONE_QUEUE change nothing")
def _set_interface(device: TunDevice, caller: Caller, argument: int) -> None:
    told: bytes | None = kept((device, "attached"))
    if told is None:
        raw = caller.mm.read(argument, IFREQ_SIZE)
        attach.check_free(device)
        wanted = raw[: IFNAMSIZ - 1].split(b"\0", 1)[0]
        (flags,) = struct.unpack_from("<H", raw, IFNAMSIZ)
        name = attach.set_interface(device, caller, wanted, flags)
        told = name.encode().ljust(IFNAMSIZ, b"\0") + raw[IFNAMSIZ:]
    with Keeping((device, "attached"), told):  # it is attached already, and would be EEXIST
        caller.mm.write(argument, told)


@REQUESTS.handles("TUNGETIFF")
def _get_interface(device: TunDevice, caller: Caller, argument: int) -> None:
    tun = device.attached
    flags = tun.shown_flags | (IFF_NOFILTER if tun.filter is None else 0)
    flags |= IFF_DETACH_QUEUE if device.is_disabled else 0
    told = tun.interface.name.encode().ljust(IFNAMSIZ, b"\0") + struct.pack("<H", flags)
    caller.mm.write(argument, told.ljust(IFREQ_SIZE, b"\0"))


@REQUESTS.handles("TUNSETQUEUE")
def _set_queue(device: TunDevice, caller: Caller, argument: int) -> None:
    (flags,) = struct.unpack_from("<H", caller.mm.read(argument, IFREQ_SIZE), IFNAMSIZ)
    attach.set_queue(device, flags)


@REQUESTS.handles("TUNSETIFINDEX")
def _set_index(device: TunDevice, caller: Caller, argument: int) -> None:
    if device.tun is not None:
        raise EPERM("it has one")
    index = _int(caller, argument)
    if index < 0:
        raise EINVAL(f"index {index}")
    device.index = index


@REQUESTS.handles("TUNSETPERSIST")
def _persist(device: TunDevice, caller: Caller, argument: int) -> None:
    tun = device.attached
    before = tun.flags
    tun.flags = before | IFF_PERSIST if argument else before & ~IFF_PERSIST
    if tun.flags != before:
        tun.tell()


@REQUESTS.handles("TUNSETOWNER")
def _set_owner(device: TunDevice, caller: Caller, argument: int) -> None:
    if argument & NO_ID == NO_ID:
        raise EINVAL("nobody")
    device.attached.owner = caller.creds.kuid(argument & NO_ID)
    device.attached.tell()


@REQUESTS.handles("TUNSETGROUP")
def _set_group(device: TunDevice, caller: Caller, argument: int) -> None:
    if argument & NO_ID == NO_ID:
        raise EINVAL("nobody")
    device.attached.group = caller.creds.kgid(argument & NO_ID)
    device.attached.tell()


@REQUESTS.handles("TUNSETLINK", partial="the kind is told, and nothing else is another")
def _set_kind(device: TunDevice, caller: Caller, argument: int) -> None:
    tun = device.attached
    if tun.interface.is_up:
        raise EBUSY("the interface is up")
    tun.interface.kind = argument & TYPES


@REQUESTS.handles("TUNSETCARRIER")
def _set_carrier(device: TunDevice, caller: Caller, argument: int) -> None:
    device.attached.set_carrier(bool(_int(caller, argument)))


@REQUESTS.handles("SIOCGIFHWADDR")
def _get_hardware(device: TunDevice, caller: Caller, argument: int) -> None:
    interface = device.attached.interface
    raw = caller.mm.read(argument, IFREQ_SIZE)
    told = struct.pack("<H", interface.kind) + interface.hardware.ljust(14, b"\0")
    caller.mm.write(argument, raw[:IFNAMSIZ] + told + raw[IFNAMSIZ + len(told) :])


@REQUESTS.handles("SIOCSIFHWADDR")
def _set_hardware(device: TunDevice, caller: Caller, argument: int) -> None:
    tun = device.attached
    raw = caller.mm.read(argument, IFREQ_SIZE)
    if not tun.is_tap:
        raise EOPNOTSUPP("no hardware address")
    if int.from_bytes(raw[IFNAMSIZ : IFNAMSIZ + 2], "little") != ARPHRD_ETHER:
        raise EINVAL("kind of link")
    set_hardware(tun.stack, tun.interface, raw[IFNAMSIZ + 2 :])


# --- what is left to who reads


@REQUESTS.handles("TUNSETOFFLOAD", partial="no datagrams are joined")
def _set_offload(device: TunDevice, caller: Caller, argument: int) -> None:
    """set_offload()."""
    left = argument
    if left & abi.TUN_F_CSUM:
        if left & SEGMENT_BITS:
            left &= ~(SEGMENT_BITS | abi.TUN_F_TSO_ECN)
        left &= ~CHECKSUM_BITS
        if left & USO_BITS == USO_BITS:
            left &= ~USO_BITS
    if left:
        raise EINVAL(f"{argument:#x}")
    device.attached.offloads = argument


@REQUESTS.handles("TUNSETNOCSUM", "TUNSETDEBUG")
def _ignored(device: TunDevice, caller: Caller, argument: int) -> None:
    """Linux does nothing either."""


_teller("TUNGETVNETHDRSZ", lambda tun: tun.header_size)
_teller("TUNGETSNDBUF", lambda tun: tun.sndbuf)
_teller("TUNGETVNETLE", lambda tun: tun.is_little_endian)


@REQUESTS.handles("TUNSETVNETHDRSZ", partial="65,536 bytes at most")
def _set_header_size(device: TunDevice, caller: Caller, argument: int) -> None:
    size = _int(caller, argument)
    if not VNET_SIZE <= size <= MAX_VNET_SIZE:
        raise EINVAL(f"{size} bytes")
    device.attached.header_size = size


@REQUESTS.handles("TUNSETSNDBUF", partial="what is written is taken in at once: there is no limit")
def _set_sndbuf(device: TunDevice, caller: Caller, argument: int) -> None:
    size = _int(caller, argument)
    if size <= 0:
        raise EINVAL(f"{size} bytes")
    device.attached.sndbuf = size


@REQUESTS.handles("TUNSETVNETLE")
def _set_little_endian(device: TunDevice, caller: Caller, argument: int) -> None:
    device.attached.is_little_endian = bool(_int(caller, argument))


@REQUESTS.handles("TUNGETVNETBE", "TUNSETVNETBE", partial="EINVAL, as without TUN_VNET_CROSS_LE")
def _big_endian(device: TunDevice, caller: Caller, argument: int) -> None:
    raise EINVAL("not for this machine")


# --- filters


def _tap(device: TunDevice) -> Tun:
    if not device.attached.is_tap:
        raise EINVAL("for TAP alone")
    return device.attached


@REQUESTS.handles("TUNSETTXFILTER")
def _set_addresses(device: TunDevice, caller: Caller, argument: int) -> int:
    """update_filter(): how many addresses count by themselves."""
    tun = _tap(device)
    flags, count = struct.unpack("<HH", caller.mm.read(argument, 4))
    raw = caller.mm.read(argument + 4, ADDRESS_SIZE * count) if count else b""
    addresses = [raw[at : at + ADDRESS_SIZE] for at in range(0, len(raw), ADDRESS_SIZE)]
    tun.addresses = AddressFilter(flags, addresses)
    return tun.addresses.exact


@REQUESTS.handles("TUNATTACHFILTER")
def _attach_filter(device: TunDevice, caller: Caller, argument: int) -> None:
    """struct sock_fprog, as of SO_ATTACH_FILTER."""
    tun = _tap(device)
    count, pointer = struct.unpack("<H6xQ", caller.mm.read(argument, 16))
    if not pointer or not 0 < count <= MAX_INSTRUCTIONS:
        raise EINVAL("length of the filter")
    tun.filter = PacketFilter(caller.mm.read(pointer, count * INSTRUCTION_SIZE))


@REQUESTS.handles("TUNDETACHFILTER")
def _detach_filter(device: TunDevice, caller: Caller, argument: int) -> None:
    _tap(device).filter = None


@REQUESTS.handles("TUNGETFILTER", partial="the length alone: where the program stood is forgotten")
def _get_filter(device: TunDevice, caller: Caller, argument: int) -> None:
    program = _tap(device).filter
    caller.mm.write(argument, struct.pack("<H6xQ", 0 if program is None else program.count, 0))


def _no_program(device: TunDevice, caller: Caller, argument: int) -> None:
    if _int(caller, argument) != -1:
        raise EINVAL("no eBPF")


for _name in ("TUNSETSTEERINGEBPF", "TUNSETFILTEREBPF"):
    REQUESTS.row(_name, _no_program, partial="there are no such programs: -1 alone")
