"""RTM_NEWLINK of an interface that is to be made, or to go elsewhere. rtnl_newlink_create()."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.capability import CAP_NET_ADMIN
from sentry.errors import EBUSY, EINVAL, ENODEV, EOPNOTSUPP, EPERM
from sentry.net.interfaces import Interface
from sentry.net.link import ethernet
from sentry.net.made import Made, check_room, free_index
from sentry.net.netlink.message import number, parse_attributes
from sentry.net.netlink.namespaces import named
from sentry.net.netlink.notices import change_flags, check_mtu, free_name
from sentry.net.virtual import bridge, dummy, veth, vlan
from sentry.net.virtual.bridge import Bridge
from sentry.net.virtual.bridging import set_master
from sentry.net.virtual.dummy import Dummy
from sentry.net.virtual.veth import Veth
from sentry.net.virtual.vlan import Vlan

if TYPE_CHECKING:
    from sentry.net.netlink.message import Request
    from sentry.net.stack import Stack

MTU: Final = 1500
MTU_MAX: Final = 65535
QUEUE: Final = 1000
EVERY_FLAG: Final = 0xFFFFFFFF
Attributes = dict[int, bytes]


def make(request: Request, head: Any, attributes: Attributes) -> None:
    """A new one. Raises: EOPNOTSUPP for a kind that is not there, EINVAL, EEXIST, EPERM, …"""
    info = parse_attributes(attributes.get(abi.IFLA_LINKINFO, b""))
    kind = info.get(abi.IFLA_INFO_KIND, b"").rstrip(b"\0")
    maker = KINDS.get(kind)
    if maker is None:
        raise EOPNOTSUPP(f"kind {kind!r}")
    stack = namespace_of(request, attributes) or request.stack
    data = parse_attributes(info.get(abi.IFLA_INFO_DATA, b""))
    made = maker(request, stack, head, attributes, data)
    if abi.IFLA_MASTER in attributes:
        wanted = attributes[abi.IFLA_MASTER]
        _or_not_at_all(made, lambda: set_master(stack, made.interface, wanted))


def namespace_of(request: Request, attributes: Attributes) -> Stack | None:
    """IFLA_NET_NS_FD, IFLA_NET_NS_PID: rtnl_link_get_net_capable(); None: neither is there.

    Raises: EINVAL, ESRCH, EBADF, EPERM.
    """
    pid, fd = attributes.get(abi.IFLA_NET_NS_PID), attributes.get(abi.IFLA_NET_NS_FD)
    stack = named(request.caller, pid, fd)
    if stack is not None:
        _check_admin_there(request, stack)
    return stack


def _check_admin_there(request: Request, stack: Stack) -> None:
    if stack.has_host_sockets or not request.caller.creds.has_in(stack.owner, CAP_NET_ADMIN):
        raise EPERM("CAP_NET_ADMIN there")


def move(request: Request, interface: Interface, attributes: Attributes) -> None:
    """To another namespace, if it says so. Raises: EINVAL, EEXIST, …"""
    stack = namespace_of(request, attributes)
    if stack is None or stack is request.stack:
        return
    if interface.driver is None:
        raise EINVAL("it stays where it is")
    own, name = interface.name.encode(), attributes.get(abi.IFLA_IFNAME, b"").split(b"\0", 1)[0]
    is_taken = any(each.name == interface.name for each in stack.interfaces)
    interface.driver.moved(stack, name if is_taken and name else own)


def _interface(
    stack: Stack, kind: str, index: int, attributes: Attributes, *, flags: int
) -> Interface:
    """Raises: EINVAL, EEXIST, EBUSY, ENOBUFS."""
    name = attributes.get(abi.IFLA_IFNAME, b"").split(b"\0", 1)[0] or f"{kind}%d".encode()
    free = free_name(name, {each.name for each in stack.interfaces})
    check_room(stack)
    if index and stack.interfaces.get(index) is not None:
        raise EBUSY(f"interface {index}")
    hardware = attributes.get(abi.IFLA_ADDRESS, b"")[: ethernet.ADDRESS_SIZE]
    if hardware and not ethernet.is_usable(hardware):
        raise EINVAL("hardware address")
    if not hardware:
        chance = os.urandom(ethernet.ADDRESS_SIZE)
        hardware = bytes([chance[0] & 0xFC | 2]) + chance[1:]
    made = Interface(
        index or free_index(stack), free, abi.ARPHRD_ETHER, flags, MTU, hardware,
        ethernet.BROADCAST, QUEUE,
    )  # fmt: skip
    made.mtu_max = MTU_MAX
    if abi.IFLA_MTU in attributes:
        made.mtu = check_mtu(made, number(attributes[abi.IFLA_MTU]))
    if abi.IFLA_TXQLEN in attributes:
        made.queue_length = number(attributes[abi.IFLA_TXQLEN])
    return made


def _configure(made: Made, head: Any) -> None:
    """rtnl_configure_link()."""
    made.tell(change=EVERY_FLAG)
    if head.ifi_flags or head.ifi_change:
        change = head.ifi_change or EVERY_FLAG
        change_flags(made.stack, made.interface, head.ifi_flags, change)


def _make_dummy(
    request: Request, stack: Stack, head: Any, attributes: Attributes, data: Attributes
) -> Made:
    interface = _interface(stack, "dummy", head.ifi_index, attributes, flags=dummy.FLAGS)
    made = Dummy(stack, interface)
    _configure(made, head)
    return made


def _make_veth(
    request: Request, stack: Stack, head: Any, attributes: Attributes, data: Attributes
) -> Made:
    """veth_newlink(): the other end first, which has what VETH_INFO_PEER says."""
    peer_head, peer = head._replace(ifi_index=0, ifi_flags=0, ifi_change=0), {}
    if abi.VETH_INFO_PEER in data:
        raw = data[abi.VETH_INFO_PEER]
        if len(raw) < abi.IFINFOMSG.size:
            raise EINVAL("VETH_INFO_PEER")
        peer_head = abi.IFINFOMSG.unpack(raw[: abi.IFINFOMSG.size])
        peer = parse_attributes(raw[abi.IFINFOMSG.size :])
    other_stack = namespace_of(request, peer) or stack
    second = Veth(
        other_stack,
        _interface(other_stack, "veth", peer_head.ifi_index, peer, flags=veth.FLAGS),
    )
    try:
        first = Veth(
            stack, _interface(stack, "veth", head.ifi_index, attributes, flags=veth.FLAGS)
        )
    except BaseException:
        second.removed()
        raise
    first.join(second)
    _configure(second, peer_head)
    _configure(first, head)
    return first


def _make_bridge(
    request: Request, stack: Stack, head: Any, attributes: Attributes, data: Attributes
) -> Made:
    interface = _interface(stack, "bridge", head.ifi_index, attributes, flags=bridge.FLAGS)
    made = Bridge(stack, interface, has_own_address=abi.IFLA_ADDRESS in attributes)
    _or_not_at_all(made, lambda: made.configure(data))
    _configure(made, head)
    return made


def _make_vlan(
    request: Request, stack: Stack, head: Any, attributes: Attributes, data: Attributes
) -> Made:
    """vlan_newlink()."""
    protocol, wanted = vlan.key_of(data)
    if wanted < 0 or abi.IFLA_LINK not in attributes:
        raise EINVAL("of which interface, and which VLAN?")
    flags = vlan.wanted_flags(data, abi.VLAN_FLAG_REORDER_HDR)
    lower = _below(request, attributes)
    vlan.check_below(lower, (protocol, wanted))
    own_flags = lower.interface.flags & ~vlan.NOT_INHERITED
    interface = _interface(stack, "vlan", head.ifi_index, attributes, flags=own_flags)
    if abi.IFLA_MTU not in attributes:
        interface.mtu = lower.interface.mtu
    elif interface.mtu > lower.interface.mtu:
        raise EINVAL("MTU")
    if abi.IFLA_ADDRESS not in attributes:
        interface.hardware = lower.interface.hardware
    made = Vlan(stack, interface, lower, (protocol, wanted), flags)
    _or_not_at_all(made, lambda: _configure(made, head))
    return made


def _below(request: Request, attributes: Attributes) -> Made:
    """IFLA_LINK, in the namespace that IFLA_LINK_NETNSID says, else here.

    Raises: ENODEV, EINVAL, EPERM, EOPNOTSUPP.
    """
    stack = request.stack
    if abi.IFLA_LINK_NETNSID in attributes:
        wanted = number(attributes[abi.IFLA_LINK_NETNSID])
        found = next((each for each, nsid in stack.numbers().items() if nsid == wanted), None)
        if found is None:
            raise EINVAL(f"no namespace {wanted}")
        _check_admin_there(request, found)
        stack = found
    interface = stack.interfaces.get(number(attributes[abi.IFLA_LINK]))
    if interface is None:
        raise ENODEV("no such interface")
    if not isinstance(interface.driver, Made):
        raise EOPNOTSUPP("VLANs of the loopback, or of an interface of the host")
    return interface.driver


def _or_not_at_all(made: Made, body: Callable[[], None]) -> None:
    try:
        body()
    except BaseException:
        made.removed()
        raise


KINDS: Final[dict[bytes, Callable[..., Made]]] = {
    b"bridge": _make_bridge, b"dummy": _make_dummy, b"veth": _make_veth, b"vlan": _make_vlan,
}  # fmt: skip
""""tun" is none of them: it is made by who serves it."""
