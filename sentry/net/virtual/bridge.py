"""bridge: what comes in at one port goes out at the one behind which its target is, or at all.

net/bridge/br_input.c, br_forward.c, br_device.c. Without STP, and VLANs do not tell ports apart;
what is for a group goes to all ports, as with a snooping that has heard no querier.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.errors import EINVAL, ELOOP, EOPNOTSUPP, EPERM
from sentry.net.ip.left import checked
from sentry.net.link import ethernet, vnet
from sentry.net.made import Made
from sentry.net.netlink.message import attribute, u8, u32
from sentry.net.netlink.notices import OPER_UNKNOWN, OPER_UP, hears, tell_in_steps
from sentry.net.virtual.fdb import TICK_NS, Entry, Fdb, told
from sentry.net.virtual.nesting import check_nesting
from sentry.net.virtual.port import Port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sentry.net.interfaces import Interface
    from sentry.net.link.link import Link
    from sentry.net.netlink.message import Reply
    from sentry.net.stack import Stack

FLAGS: Final = abi.IFF_BROADCAST | abi.IFF_MULTICAST
MTU: Final = 1500
LEAST: Final = vnet.SIZE + ethernet.HEADER_SIZE
TARGET: Final = slice(vnet.SIZE, vnet.SIZE + ethernet.ADDRESS_SIZE)
SOURCE: Final = slice(TARGET.stop, TARGET.stop + ethernet.ADDRESS_SIZE)
OF_LINK: Final = b"\x01\x80\xc2\0\0"
RESERVED: Final = range(1, 16)
"""01:80:c2:00:00:0X is for who is at the other end alone: IEEE 802.1D, 7.12.6; but for STP's own
address, 0, since it is off."""
TIMES: Final = {
    abi.IFLA_BR_FORWARD_DELAY: 1500, abi.IFLA_BR_HELLO_TIME: 200, abi.IFLA_BR_MAX_AGE: 2000,
}  # fmt: skip
"""Of STP, in hundredths of a second: they are kept."""
OFF: Final = (
    abi.IFLA_BR_STP_STATE, abi.IFLA_BR_VLAN_FILTERING, abi.IFLA_BR_GROUP_FWD_MASK,
    abi.IFLA_BR_NF_CALL_IPTABLES, abi.IFLA_BR_NF_CALL_IP6TABLES, abi.IFLA_BR_NF_CALL_ARPTABLES,
)  # fmt: skip
"""What there is not here."""


class Bridge(Made):
    """One of them, and the `Sink` of its link."""

    kind = "bridge"
    has_room = True
    stays_inside = True

    def __init__(self, stack: Stack, interface: Interface, *, has_own_address: bool) -> None:
        """`has_own_address`: a program chose it. Raises: what `check_place` raises."""
        self.ports: dict[int, Port] = {}
        """By number."""
        self.fdb = Fdb()
        self.fdb.on_change = self._tell_entries
        self.fdb.on_deadline = self._tell_deadline
        self.times = dict(TIMES)
        self.priority = 32768
        self.snoops = 1
        self.oper_state = OPER_UNKNOWN
        self._own = frozenset({interface.hardware})
        """Hardware addresses at which the bridge is reached: its ports', too."""
        self._hardware = b"" if has_own_address else interface.hardware
        """Chosen here; empty: by a program."""
        self._mtu = interface.mtu if interface.mtu == MTU else 0
        interface.sent = [0, 0]
        super().__init__(stack, interface)

    def _plug_into(self, stack: Stack) -> None:
        super()._plug_into(stack)
        self.layer.timed.append(self)

    def new_link(self) -> Link:
        """Its frames go to ports."""
        link = super().new_link()
        link.sink = self
        return link

    # --- ports

    def below(self) -> Iterator[Made]:
        """Its ports."""
        for each in self.ports.values():
            yield each.made

    def add(self, made: Made) -> None:
        """br_add_if(). Raises: EINVAL, ELOOP, EBUSY, EMLINK, and EPERM for what leads outside where
        that is judged, which is done with packets that are routed."""
        if made.interface.kind != abi.ARPHRD_ETHER:
            raise EINVAL("no Ethernet")
        if self.stack.egress is not None and not made.stays_inside:
            raise EPERM("there is an egress policy")
        if isinstance(made, Bridge):
            raise ELOOP("a bridge")
        check_nesting(made, self)
        if made.upper is not None:
            made.upper.left()
        number = next(each for each in range(1, len(self.ports) + 2) if each not in self.ports)
        port = made.upper = self.ports[number] = Port(self, made, number)
        made.tell()
        self.port_changed(port)

    def release(self, port: Port) -> None:
        """br_del_if()."""
        del self.ports[port.number]
        port.made.upper = None
        self.fdb.drop(port)
        port.made.tell()
        self.port_changed(port)

    def port_changed(self, port: Port) -> None:
        """Its addresses, the MTU and the carrier are those of its ports: br_device_event()."""
        if not port.is_open:
            self.fdb.forget(port)
        own = self.interface
        of_ports = [each.made.interface for each in self.ports.values()]
        if self._hardware and of_ports:
            own.hardware = self._hardware = min(each.hardware for each in of_ports)
        if self._mtu:
            own.mtu = self._mtu = min((each.mtu for each in of_ports), default=MTU)
        self._look_at_addresses()
        self.stack.outdate()
        self._look_at_carrier()
        self.tell_vlans()

    def _look_at_addresses(self) -> None:
        own = self.link.hardware = self.interface.hardware
        of_ports = (each.made.interface.hardware for each in self.ports.values())
        self._own = frozenset({own, *of_ports})

    def _look_at_carrier(self) -> None:
        """br_port_state_selection()."""
        self.oper_state = OPER_UP
        self.set_carrier(any(each.is_open for each in self.ports.values()))

    def turned(self) -> None:
        """br_dev_open(): ports are looked at where there are any."""
        super().turned()
        if self.interface.is_up and self.ports:
            self._look_at_carrier()

    def changed(self) -> None:
        """What a program has chosen stays."""
        if self.interface.hardware != self._hardware:
            self._hardware = b""
        if self.interface.mtu != self._mtu:
            self._mtu = 0
        self._look_at_addresses()
        super().changed()

    def _unplug(self) -> None:
        ports, self.ports = self.ports, {}
        for each in ports.values():
            each.made.upper = None
            self.fdb.drop(each)
            each.made.tell()
        super()._unplug()
        self.layer.timed.remove(self)

    def removed(self) -> None:
        """br_dev_delete()."""
        super().removed()
        self.fdb.end()

    # --- who is where

    @property
    def own_addresses(self) -> frozenset[bytes]:
        """Hardware addresses at which the bridge is reached."""
        return self._own

    def local_entries(self) -> list[Entry]:
        """Those of its FDB that follow from these: fdb_add_local()."""
        found: dict[bytes, Entry] = {}
        for each in self.ports.values():
            hardware = each.made.interface.hardware
            found.setdefault(hardware, Entry(hardware, each, abi.NUD_PERMANENT))
        own = self.interface.hardware
        found.setdefault(own, Entry(own, None, abi.NUD_PERMANENT))
        return list(found.values())

    def _tell_entries(self, entries: Sequence[Entry], kind: int) -> None:
        """fdb_notify(). Of many, which are gone, a message is made when its turn comes."""
        if hears(self.stack, abi.RTNLGRP_NEIGH):
            index, now_ns = self.interface.index, self.now_ns()
            messages: Iterable[Reply] = (told(each, index, now_ns, kind) for each in entries)
            if len(entries) == 1:
                messages = tuple(messages)
            tell_in_steps(self.stack, abi.RTNLGRP_NEIGH, messages)

    def _tell_deadline(self) -> None:
        self.layer.on_deadline()

    def timer(self) -> int | None:
        """When somebody is forgotten."""
        return self.fdb.timer()

    def timeout(self, now_ns: int) -> None:
        """Who was not heard of for long."""
        self.fdb.timeout(now_ns)

    # --- frames

    def came(self, port: Port, frames: tuple[bytes, ...]) -> None:
        """br_handle_frame()."""
        if not port.is_open:
            port.made.interface.dropped += len(frames)
            return
        now_ns, ours = self.now_ns(), []
        for data in frames:
            frame = checked(data) if len(data) >= LEAST else None
            if frame is None or not ethernet.is_usable(frame[SOURCE]):
                continue
            target, source = frame[TARGET], frame[SOURCE]
            if port.is_on[abi.IFLA_BRPORT_LEARNING] and source not in self._own:
                self.fdb.learn(source, port, now_ns)
            if target in self._own:
                ours.append(self._addressed(frame))
            elif not ethernet.is_group(target):
                known = self.fdb.find(target, now_ns)
                is_local = known is not None and known.is_local
                if is_local or (self.vlans and self._is_heard(target)):
                    ours.append(frame)
                if not is_local:
                    self._towards(frame, known, port)
            elif target[:5] != OF_LINK or target[5] not in RESERVED:
                ours.append(frame)
                self._flood(frame, self._group_switch(target), port)
        if ours:
            counted = self.interface.received
            counted[0] += len(ours)
            counted[1] += sum(map(len, ours)) - vnet.SIZE * len(ours)
            self.received(*ours)

    def _is_heard(self, target: bytes) -> bool:
        """A VLAN of the bridge has this address, or all of them as a port: IFF_PROMISC."""
        return any(
            each.upper is not None or each.interface.hardware == target
            for each in self.vlans.values()
        )

    def _addressed(self, frame: bytes) -> bytes:
        """For the bridge, though it was for the address of a port."""
        if frame[TARGET] == self.interface.hardware:
            return frame
        return frame[: vnet.SIZE] + self.interface.hardware + frame[TARGET.stop :]

    def put(self, frame: bytes) -> None:
        """br_dev_xmit(): of the bridge itself."""
        sent, target = self.interface.sent, frame[TARGET]
        assert sent is not None
        sent[0] += 1
        sent[1] += len(frame) - vnet.SIZE
        if ethernet.is_group(target):
            self._flood(frame, self._group_switch(target), None)
        else:
            self._towards(frame, self.fdb.find(target, self.now_ns()), None)

    @staticmethod
    def _group_switch(target: bytes) -> int:
        is_broadcast = target == ethernet.BROADCAST
        return abi.IFLA_BRPORT_BCAST_FLOOD if is_broadcast else abi.IFLA_BRPORT_MCAST_FLOOD

    def _towards(self, frame: bytes, known: Entry | None, came: Port | None) -> None:
        if known is None:
            self._flood(frame, abi.IFLA_BRPORT_UNICAST_FLOOD, came)
        elif known.port is not None and _may_go(known.port, came):
            known.port.send(frame)

    def _flood(self, frame: bytes, switch: int, came: Port | None) -> None:
        for each in self.ports.values():
            if _may_go(each, came) and (each.is_on[switch] or came is None):
                each.send(frame)

    # --- what is told and set

    def details(self) -> bytes:
        """br_fill_info()."""
        identity = struct.pack(">H", self.priority) + self.interface.hardware
        return b"".join((
            *(u32(kind, value) for kind, value in self.times.items()),
            u32(abi.IFLA_BR_AGEING_TIME, self.fdb.ageing_ns // TICK_NS),
            u32(abi.IFLA_BR_STP_STATE, 0),
            attribute(abi.IFLA_BR_PRIORITY, struct.pack("<H", self.priority)),
            u8(abi.IFLA_BR_VLAN_FILTERING, 0),
            attribute(abi.IFLA_BR_GROUP_FWD_MASK, bytes(2)),
            attribute(abi.IFLA_BR_BRIDGE_ID, identity),
            attribute(abi.IFLA_BR_ROOT_ID, identity),
            u8(abi.IFLA_BR_MCAST_SNOOPING, self.snoops),
        ))  # fmt: skip

    def configure(self, attributes: dict[int, bytes]) -> None:
        """br_changelink(). Raises: EOPNOTSUPP for what there is not."""
        numbers = {kind: int.from_bytes(value, "little") for kind, value in attributes.items()}
        for kind in OFF:
            if numbers.get(kind):
                raise EOPNOTSUPP("a bridge without STP, VLANs and netfilter")
        for kind in TIMES.keys() & numbers.keys():
            self.times[kind] = numbers[kind] & 0xFFFFFFFF
        if abi.IFLA_BR_AGEING_TIME in numbers:
            self.fdb.ageing_ns = (numbers[abi.IFLA_BR_AGEING_TIME] & 0xFFFFFFFF) * TICK_NS
            self.layer.on_deadline()
        self.priority = numbers.get(abi.IFLA_BR_PRIORITY, self.priority) & 0xFFFF
        self.snoops = int(bool(numbers.get(abi.IFLA_BR_MCAST_SNOOPING, self.snoops)))


def _may_go(port: Port, came: Port | None) -> bool:
    """should_deliver()."""
    if not port.is_open or (port is came and not port.is_on[abi.IFLA_BRPORT_MODE]):
        return False
    isolated = abi.IFLA_BRPORT_ISOLATED
    return came is None or not (came.is_on[isolated] and port.is_on[isolated])
