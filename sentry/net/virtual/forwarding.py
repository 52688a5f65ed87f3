"""RTM_*NEIGH of AF_BRIDGE: who is behind which port. net/core/rtnetlink.c, net/bridge/br_fdb.c."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NLM_F_BULK
from sentry.errors import EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP, EPERM
from sentry.net.link import ethernet
from sentry.net.netlink.message import Reply, Request, number
from sentry.net.virtual.bridge import Bridge
from sentry.net.virtual.fdb import Entry, told
from sentry.net.virtual.port import Port

if TYPE_CHECKING:
    from sentry.net.interfaces import Interface
    from sentry.net.stack import Stack

STATES: Final = abi.NUD_PERMANENT | abi.NUD_NOARP | abi.NUD_REACHABLE
FLUSHED_STATES: Final = abi.NUD_PERMANENT | abi.NUD_NOARP
NOT_OF_ENTRIES: Final = abi.NTF_MASTER | abi.NTF_SELF
FLUSHED_FLAGS: Final = abi.NTF_USE | abi.NTF_EXT_LEARNED | abi.NTF_STICKY
Attributes = dict[int, bytes]


def _port_of(link: Interface) -> Port | None:
    port = None if link.driver is None else link.driver.upper
    return port if isinstance(port, Port) else None


def _bridge_of(link: Interface) -> Bridge | None:
    return link.driver if isinstance(link.driver, Bridge) else None


# --- what there is


def entries(request: Request) -> Iterator[Reply]:
    """RTM_GETNEIGH: all, of a bridge, or of a port. rtnl_fdb_dump(), br_fdb_dump()."""
    index, master = _filter(request)
    known: dict[Bridge, dict[Port | None, list[Entry]]] = {}
    for link in request.stack.interfaces.those_still_there():
        if index not in (0, link.index):
            continue
        port, bridge = _port_of(link), _bridge_of(link)
        owner = port.bridge if port is not None else bridge
        if owner is None or master not in (0, owner.interface.index):
            continue
        if owner not in known:
            known[owner] = _by_port(owner)
        now_ns = owner.now_ns()
        for each in known[owner].get(port, ()):
            yield told(each, owner.interface.index, now_ns)


def _by_port(bridge: Bridge) -> dict[Port | None, list[Entry]]:
    found: dict[Port | None, list[Entry]] = {}
    for each in (*bridge.local_entries(), *bridge.fdb):
        found.setdefault(each.port, []).append(each)
    return found


def _filter(request: Request) -> tuple[int, int]:
    """The interface and the bridge that a dump asks for: struct ndmsg, or struct ifinfomsg of those
    who do not know better. valid_fdb_dump_strict(), valid_fdb_dump_legacy()."""
    strict = abi.NETLINK_GET_STRICT_CHK in request.sock.flags_set
    size, body = abi.NDMSG.size, request.body
    if strict or len(body) in (size, size + 8):
        if len(body) < size:
            return 0, 0
        found = request.attributes(size)
        index = abi.NDMSG.unpack(body).ndm_ifindex
        if abi.NDA_IFINDEX in found:
            index = number(found[abi.NDA_IFINDEX])
        return index, number(found.get(abi.NDA_MASTER, bytes(4)))
    if len(body) < abi.IFINFOMSG.size:
        return 0, 0
    found = request.attributes(abi.IFINFOMSG.size)
    return abi.IFINFOMSG.unpack(body).ifi_index, number(found.get(abi.IFLA_MASTER, bytes(4)))


def entry(request: Request, head: Any, attributes: Attributes) -> list[Reply]:
    """RTM_GETNEIGH of one: rtnl_fdb_get(). Raises: EINVAL, ENODEV, ENOENT, EOPNOTSUPP."""
    stack, hardware = request.stack, _hardware(attributes)
    master = number(attributes.get(abi.NDA_MASTER, bytes(4)))
    if bool(head.ndm_ifindex) == bool(master):
        raise EINVAL("one interface")
    link = stack.interfaces.get(head.ndm_ifindex or master)
    if link is None:
        raise ENODEV("no such interface")
    port = _port_of(link)
    by_port = head.ndm_ifindex and (not head.ndm_flags or head.ndm_flags & abi.NTF_MASTER)
    if by_port and port is None:
        raise EINVAL("no port of a bridge")
    bridge = port.bridge if by_port and port is not None else _bridge_of(link)
    if bridge is None:
        raise EOPNOTSUPP(f"{link.name} is no bridge")
    local = (each for each in bridge.local_entries() if each.hardware == hardware)
    found = next(local, None) or bridge.fdb.get(hardware)
    if found is None:
        raise ENOENT("nobody knows it")
    return [told(found, bridge.interface.index, bridge.now_ns())]


# --- changes


def _hardware(attributes: Attributes) -> bytes:
    found = attributes.get(abi.NDA_LLADDR, b"")
    if len(found) != ethernet.ADDRESS_SIZE:
        raise EINVAL("NDA_LLADDR")
    return found


def _meant(stack: Stack, head: Any) -> tuple[Bridge, Port | None]:
    """The bridge, and which of its ports; None: itself.

    Raises: EINVAL, ENODEV, EOPNOTSUPP, and EPERM for what is of the host.
    """
    if head.ndm_ifindex <= 0:
        raise EINVAL("no interface")
    link = stack.interfaces.by_index(head.ndm_ifindex)
    stack.check_own(link.index)
    port, bridge = _port_of(link), _bridge_of(link)
    if port is not None and (not head.ndm_flags or head.ndm_flags & abi.NTF_MASTER):
        return port.bridge, port
    if bridge is not None and head.ndm_flags & abi.NTF_SELF:
        return bridge, None
    raise EOPNOTSUPP(f"{link.name} has no such table")


def add(request: Request, head: Any, attributes: Attributes) -> None:
    """RTM_NEWNEIGH: rtnl_fdb_add(), __br_fdb_add(), fdb_add_entry().

    Raises: EINVAL, ENODEV, EEXIST, ENOENT, ENOMEM, EOPNOTSUPP, EPERM.
    """
    if head.ndm_ifindex:
        request.stack.interfaces.by_index(head.ndm_ifindex)
    hardware = _hardware(attributes)
    bridge, port = _meant(request.stack, head)
    if abi.NDA_VLAN in attributes or number(attributes.get(abi.NDA_FLAGS_EXT, bytes(4))):
        raise EOPNOTSUPP("VLANs of a bridge, and ports that are locked")
    state = head.ndm_state
    if not state & STATES or not any(hardware):
        raise EINVAL("a state, or an address")
    now_ns = bridge.now_ns()
    if head.ndm_flags & abi.NTF_USE:
        if port is None:
            raise EINVAL("the bridge itself is not heard")
        if port.is_open and hardware not in bridge.own_addresses:
            bridge.fdb.learn(hardware, port, now_ns)
        return
    flags = head.ndm_flags & (abi.NTF_STICKY | abi.NTF_EXT_LEARNED)
    if flags and state & abi.NUD_PERMANENT and not flags & abi.NTF_EXT_LEARNED:
        raise EINVAL("what is here stays anyway")
    if port is None and not state & abi.NUD_PERMANENT:
        raise EINVAL("the bridge itself is here")
    if port is not None and not state & FLUSHED_STATES and not port.is_open:
        raise EPERM("a port that does not learn")
    wanted = next(each for each in (abi.NUD_PERMANENT, abi.NUD_NOARP, abi.NUD_REACHABLE)
                  if state & each)  # fmt: skip
    made = Entry(hardware, port, wanted, flags, now_ns, now_ns)
    _put(request, bridge, made)


def _put(request: Request, bridge: Bridge, made: Entry) -> None:
    known = bridge.fdb.get(made.hardware)
    if made.hardware in bridge.own_addresses:
        raise EEXIST("it is the bridge's own")
    if known is None and not request.flags & abi.NLM_F_CREATE:
        raise ENOENT("nobody knows it")
    if known is not None and request.flags & abi.NLM_F_EXCL:
        raise EEXIST("it is known")
    if known is not None:
        same = (known.port, known.state, known.flags) == (made.port, made.state, made.flags)
        known.used_ns = made.used_ns
        if same:
            return
    if not made.ages and (known is None or known.ages) and not bridge.fdb.has_room():
        raise ENOMEM("too many entries")
    bridge.fdb.put(made)


def delete(request: Request, head: Any, attributes: Attributes) -> None:
    """RTM_DELNEIGH: rtnl_fdb_del(). Raises: EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM."""
    if head.ndm_ifindex:
        request.stack.interfaces.by_index(head.ndm_ifindex)
    if request.flags & NLM_F_BULK:
        _flush(request, head, attributes)
        return
    hardware = _hardware(attributes)
    bridge, port = _meant(request.stack, head)
    if abi.NDA_VLAN in attributes:
        raise EOPNOTSUPP("VLANs of a bridge")
    known = bridge.fdb.get(hardware)
    if hardware in bridge.own_addresses:
        raise EOPNOTSUPP("the bridge's own stays")
    if known is None or known.port is not port:
        raise ENOENT("nobody knows it")
    bridge.fdb.remove([known])


def _flush(request: Request, head: Any, attributes: Attributes) -> None:
    """br_fdb_delete_bulk(): those of a state, with flags, behind a port."""
    bridge, port = _meant(request.stack, head)
    flags = head.ndm_flags & ~NOT_OF_ENTRIES
    if flags & ~FLUSHED_FLAGS or head.ndm_state & ~FLUSHED_STATES:
        raise EINVAL("flags, or a state")
    if abi.NDA_VLAN in attributes:
        raise EOPNOTSUPP("VLANs of a bridge")
    if abi.NDA_IFINDEX in attributes:
        link = request.stack.interfaces.get(number(attributes[abi.NDA_IFINDEX]))
        port = None if link is None else _port_of(link)
        if port is None or port.bridge is not bridge:
            raise EINVAL("no port of this bridge")
    state_mask = _small(attributes, abi.NDA_NDM_STATE_MASK, 2)
    flags_mask = _small(attributes, abi.NDA_NDM_FLAGS_MASK, 1) & ~NOT_OF_ENTRIES
    bridge.fdb.remove([
        each for each in bridge.fdb
        if port in (None, each.port)
        and _state_bits(each.state) & state_mask == _state_bits(head.ndm_state) & state_mask
        and each.flags & flags_mask == flags & flags_mask
    ])  # fmt: skip


def _state_bits(state: int) -> int:
    """What is local is static, too: __ndm_state_to_fdb_flags()."""
    return state | abi.NUD_NOARP if state & abi.NUD_PERMANENT else state


def _small(attributes: Attributes, kind: int, size: int) -> int:
    return int.from_bytes(attributes.get(kind, b"")[:size], "little")
