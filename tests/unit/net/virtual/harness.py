"""Network namespaces whose interfaces programs make: by netlink, without a program."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import sentry.net.netlink.protocols  # noqa: F401  registers who answers
from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.auth.credentials import Credentials
from sentry.loop import HostOnly
from sentry.net.interfaces import Address, Interface
from sentry.net.link import ethernet, vnet
from sentry.net.link.link import Link
from sentry.net.made import Made, free_index
from sentry.net.netlink.message import HEADER, Reply, Request, attribute, text, u32
from sentry.net.netlink.notices import OPER_UP, change_flags, tell_address
from sentry.net.netlink.registry import PROTOCOLS
from sentry.net.stack import Stack
from tests.unit.net.wired import hardware
from tests.world import SteppedLoop

NEW = abi.NLM_F_CREATE | abi.NLM_F_EXCL
CALLER: Any = SimpleNamespace(creds=Credentials.root())
PORT = 1


class Machine(HostOnly):
    """None that runs a program."""

    again = False


class Kernel:
    """A loop whose clock moves when a test says so."""

    def __init__(self) -> None:
        self.loop = SteppedLoop(Machine(), self.failed)
        self.log = SimpleNamespace(write=lambda text: None)

    def failed(self, name: object, error: BaseException) -> None:
        raise error


class Net:
    """A network namespace, and a netlink socket of root in it."""

    def __init__(self, kernel: Kernel) -> None:
        self.stack = Stack(kernel, {})
        self.loop = kernel.loop
        self.flags_set: set[int] = set()
        self.groups: set[int] = set()
        self.port = PORT
        self.told: list[tuple[int, bytes]] = []
        self.stack.netlink[NETLINK_ROUTE, PORT] = self

    def join(self, *groups: int) -> None:
        """Hear of what changes from now on."""
        self.groups = set(groups)
        self.stack.netlink_groups.update((NETLINK_ROUTE, each) for each in groups)

    def deliver(
        self, data: bytes, port: int, group: int, creds: tuple[int, int, int] = (0, 0, 0)
    ) -> bool:
        """A notice."""
        self.told.append((abi.NLMSGHDR.unpack(data).nlmsg_type, data[HEADER:]))
        return True

    def ask(self, kind: int, body: bytes, flags: int = 0) -> list[Reply]:
        """What the answer is. Raises: the errno."""
        request = Request(kind, flags, 1, body, CALLER, self.stack, self)
        return list(PROTOCOLS[NETLINK_ROUTE][kind](request) or ())

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all answers."""
        return [found for _, found in self.ask(kind, body, abi.NLM_F_DUMP)]

    # --- interfaces

    def link(self, name: str) -> Interface:
        """One that is there."""
        return self.stack.interfaces.by_name(name)

    def made(self, name: str) -> Any:
        """What is behind it."""
        return self.link(name).driver

    def add(self, name: str, kind: str, *more: bytes, data: bytes = b"", up: bool = False) -> Any:
        """ip link add NAME … type KIND; what is behind it."""
        info = text(abi.IFLA_INFO_KIND, kind)
        info += attribute(abi.IFLA_INFO_DATA, data) if data else b""
        flags = abi.IFF_UP if up else 0
        body = abi.IFINFOMSG.pack(0, 0, 0, 0, flags, flags) + text(abi.IFLA_IFNAME, name)
        body += b"".join(more) + attribute(abi.IFLA_LINKINFO, info)
        self.ask(abi.RTM_NEWLINK, body, NEW)
        return self.made(name)

    def set(self, name: str, *attributes: bytes) -> None:
        """ip link set NAME …"""
        head = abi.IFINFOMSG.pack(0, 0, 0, self.link(name).index, 0, 0)
        self.ask(abi.RTM_NEWLINK, head + b"".join(attributes))

    def turn(self, name: str, *, on: bool = True) -> None:
        """Up, or down."""
        change_flags(self.stack, self.link(name), abi.IFF_UP if on else 0, abi.IFF_UP)

    def address(self, name: str, ip: bytes, prefix: int) -> None:
        """ip address add IP/PREFIX dev NAME."""
        link, family = self.link(name), AF_INET if len(ip) == 4 else AF_INET6
        own = Address(family, ip, prefix, abi.RT_SCOPE_UNIVERSE)
        link.add(own)
        tell_address(self.stack, link, own, abi.RTM_NEWADDR)

    def remove(self, name: str) -> None:
        """ip link del NAME."""
        self.ask(abi.RTM_DELLINK, abi.IFINFOMSG.pack(0, 0, 0, self.link(name).index, 0, 0))

    def names(self) -> list[str]:
        """But the loopback."""
        return [link.name for link in self.stack.interfaces if not link.is_loopback]


class Cable(Made):
    """An interface whose other end is the test: the `Sink` of its link."""

    kind = "cable"
    oper_state = OPER_UP
    has_room = True

    def __init__(self, net: Net, name: str, number: int) -> None:
        """`number` is in its hardware address."""
        self.frames: list[bytes] = []
        flags = abi.IFF_BROADCAST | abi.IFF_MULTICAST
        interface = Interface(
            free_index(net.stack), name, abi.ARPHRD_ETHER, flags, 1500, hardware(number),
            ethernet.BROADCAST,
        )  # fmt: skip
        interface.sent, interface.mtu_max = [0, 0], 65535
        super().__init__(net.stack, interface)

    def new_link(self) -> Link:
        link = super().new_link()
        link.sink = self
        return link

    def put(self, frame: bytes) -> None:
        self.frames.append(frame)

    def taken(self) -> list[bytes]:
        """What it has sent since the last time, without virtio headers."""
        frames, self.frames = self.frames, []
        return [frame[vnet.SIZE :] for frame in frames]

    def hear(self, *frames: bytes) -> None:
        """These come, with all done."""
        self.received(*(bytes(vnet.SIZE) + frame for frame in frames))


def vlan(number: int, protocol: int = 0, flags: bytes = b"") -> bytes:
    """IFLA_INFO_DATA."""
    data = attribute(abi.IFLA_VLAN_ID, number.to_bytes(2, "little")) + flags
    return data + (attribute(abi.IFLA_VLAN_PROTOCOL, protocol.to_bytes(2)) if protocol else b"")


def on(made: Made) -> bytes:
    """IFLA_LINK."""
    return u32(abi.IFLA_LINK, made.interface.index)
