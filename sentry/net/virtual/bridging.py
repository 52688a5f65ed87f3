"""What netlink says of bridges and ports: rtnl_changelink(), do_set_master(), br_setlink()."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_BRIDGE
from sentry.errors import EINVAL, EOPNOTSUPP
from sentry.net.made import Made
from sentry.net.netlink.message import Reply, attribute, number, parse_attributes, text, u8, u32
from sentry.net.netlink.notices import oper_state
from sentry.net.virtual.bridge import Bridge
from sentry.net.virtual.port import Port

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack

Attributes = dict[int, bytes]


def change(link: Interface, attributes: Attributes) -> None:
    """IFLA_LINKINFO: of a bridge or a VLAN, or of a port. Raises: EINVAL, ERANGE, EOPNOTSUPP."""
    info = parse_attributes(attributes.get(abi.IFLA_LINKINFO, b""))
    kind = info.get(abi.IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    if abi.IFLA_INFO_DATA in info:
        if not isinstance(link.driver, Made) or kind != link.driver.kind:
            raise EOPNOTSUPP(f"to change {link.name} as a {kind}")
        link.driver.configure(parse_attributes(info[abi.IFLA_INFO_DATA]))
    if abi.IFLA_INFO_SLAVE_DATA in info:
        port_of(link).configure(parse_attributes(info[abi.IFLA_INFO_SLAVE_DATA]))


def port_of(link: Interface) -> Port:
    """Raises: EOPNOTSUPP."""
    port = link.driver.upper if link.driver is not None else None
    if not isinstance(port, Port):
        raise EOPNOTSUPP("no port of a bridge")
    return port


def set_master(stack: Stack, link: Interface, wanted: bytes) -> None:
    """IFLA_MASTER: to a bridge, or to none (0).

    Raises: EINVAL, EOPNOTSUPP, ELOOP, and EBUSY or EMLINK by what stands on what.
    """
    made, index = link.driver, number(wanted)
    if not index:
        if made is not None and made.upper is not None:
            made.upper.left()
        return
    master = stack.interfaces.get(index)
    if master is None:
        raise EINVAL(f"interface {index}")
    if not isinstance(master.driver, Bridge):
        raise EOPNOTSUPP(f"{master.name} is no bridge")
    if link.is_loopback:
        raise EINVAL("the loopback")
    if not isinstance(made, Made):
        raise EOPNOTSUPP("an interface of the host")
    if made.upper is None or made.upper.index != index:
        master.driver.add(made)


def set_port(link: Interface, attributes: Attributes) -> None:
    """RTM_SETLINK of AF_BRIDGE. Raises: EINVAL, ERANGE, and EOPNOTSUPP for VLANs."""
    if abi.IFLA_AF_SPEC in attributes:
        raise EOPNOTSUPP("VLANs of a bridge")
    port = port_of(link)
    if abi.IFLA_PROTINFO not in attributes:
        raise EINVAL("no IFLA_PROTINFO")
    port.configure(parse_attributes(attributes[abi.IFLA_PROTINFO]))
    port.made.tell()


def port_messages(stack: Stack) -> Iterable[Reply]:
    """RTM_GETLINK of AF_BRIDGE: br_fill_ifinfo()."""
    for link in stack.interfaces.those_still_there():
        port = link.driver.upper if link.driver is not None else None
        if link.driver is None or port is None:
            continue
        body = abi.IFINFOMSG.pack(AF_BRIDGE, 0, link.kind, link.index, link.flags, 0)
        body += text(abi.IFLA_IFNAME, link.name) + u32(abi.IFLA_MASTER, port.index)
        body += u32(abi.IFLA_MTU, link.mtu) + u8(abi.IFLA_OPERSTATE, oper_state(link))
        body += attribute(abi.IFLA_ADDRESS, link.hardware) + link.driver.link_attributes()
        told = attribute(abi.IFLA_PROTINFO | abi.NLA_F_NESTED, port.details())
        yield abi.RTM_NEWLINK, body + told
