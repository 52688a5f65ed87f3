"""VLANs: whose frames they get, what follows what is below, and what cannot be."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.abi import netlink as abi
from sentry.abi.socket import (
    ETH_P_8021AD,
    ETH_P_8021Q,
    ETH_P_ARP,
    ETH_P_IP,
    IPPROTO_UDP,
    PACKET_OUTGOING,
)
from sentry.errors import (
    EBUSY,
    EEXIST,
    EINVAL,
    EMLINK,
    ENETDOWN,
    ENODEV,
    EOPNOTSUPP,
    EPERM,
    EPROTONOSUPPORT,
    ERANGE,
    Errno,
)
from sentry.net.ip.seam import Outgoing
from sentry.net.link import arp, ethernet, vnet
from sentry.net.link.vnet import Offload
from sentry.net.netlink.message import attribute, parse_attributes, u32
from sentry.net.netlink.notices import OPER_LOWERLAYERDOWN, OPER_UP, link_message, set_hardware
from sentry.net.packets import Frame
from sentry.net.virtual.listing import config, shown
from sentry.net.virtual.nesting import MAX_COPIES, MAX_LEVELS
from tests.unit.net.virtual.harness import Cable, Kernel, Net, on, vlan
from tests.unit.net.wired import Keeper, hardware, ip4

TAG5 = struct.pack(">HH", ETH_P_8021Q, 5)
VLAN5 = vlan(5)


class World:
    """One namespace with an interface that is up, and a VLAN 5 of it."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.net = Net(self.kernel)
        self.cable = Cable(self.net, "eth0", 1)
        self.net.turn("eth0")
        self.vlan = self.net.add("eth0.5", "vlan", on(self.cable), data=VLAN5, up=True)
        self.cable.taken()


@pytest.fixture
def world() -> World:
    return World()


def request(target: bytes, tag: bytes = b"") -> bytes:
    """Who has an address? Hardware address 2 asks, which is 10.0.0.2."""
    packet = arp.ArpPacket(arp.REQUEST, hardware(2), ip4(2), bytes(6), target)
    head = ethernet.BROADCAST + hardware(2) + tag + ETH_P_ARP.to_bytes(2)
    return head + arp.build(packet)


def attributes(net: Net, name: str) -> dict[int, bytes]:
    return parse_attributes(link_message(net.link(name))[1][abi.IFINFOMSG.size :])


# --- frames


def test_frames_with_its_tag_are_its_own_and_answers_have_the_tag(world: World) -> None:
    world.net.address("eth0.5", ip4(1), 24)
    world.cable.taken()
    sent, octets = world.net.link("eth0.5").sent or [0, 0]

    world.cable.hear(request(ip4(1), TAG5))

    (answer,) = world.cable.taken()
    assert answer[:12] == hardware(2) + hardware(1) and answer[12:16] == TAG5
    packet = arp.parse(answer[18:])
    assert packet is not None and (packet.operation, packet.sender) == (arp.REPLY, ip4(1))
    assert world.vlan.groups == 1 and world.net.link("eth0.5").received[0] == 1
    assert world.net.link("eth0.5").sent == [sent + 1, octets + len(answer) - 4]


@pytest.mark.parametrize("tag", [
    b"", struct.pack(">HH", ETH_P_8021Q, 6), struct.pack(">HH", ETH_P_8021AD, 5),
])  # fmt: skip
def test_other_frames_are_not(world: World, tag: bytes) -> None:
    world.cable.hear(request(ip4(1), tag))

    assert world.net.link("eth0.5").received == [0, 0]


def test_priority_in_the_tag_is_no_other_vlan(world: World) -> None:
    world.cable.hear(request(ip4(1), struct.pack(">HH", ETH_P_8021Q, 0xE005)))

    assert world.net.link("eth0.5").received[0] == 1


def test_frames_keep_what_their_virtio_header_leaves_to_others(world: World) -> None:
    size = 30000
    head = struct.pack("<BBHHHH", 1, 1, 54, 1400, 34, 16)
    frame = head + hardware(2) + hardware(1) + ETH_P_IP.to_bytes(2) + bytes(size)

    world.vlan.link.pass_on(frame)

    (sent,) = world.cable.frames
    assert sent[: vnet.SIZE] == struct.pack("<BBHHHH", 1, 1, 58, 1400, 38, 16)
    assert sent[vnet.SIZE + 12 : vnet.SIZE + 16] == TAG5 and len(sent) == len(frame) + 4
    came: list[bytes] = []
    world.vlan.received = lambda *frames: came.extend(frames)
    world.cable.received(sent)
    assert came == [frame]


def test_two_namespaces_hand_each_other_segments_whole() -> None:
    kernel = Kernel()
    one, two = Net(kernel), Net(kernel)
    one.add("a", "veth").other.moved(two.stack, b"b")
    for net, name, number in ((one, "a", 1), (two, "b", 2)):
        net.turn(name)
        net.add("v", "vlan", on(net.made(name)), data=VLAN5, up=True)
        net.address("v", ip4(number), 24)
    keeper = Keeper()
    here, there = one.stack.ip, two.stack.ip
    assert here is not None and there is not None
    there.handlers[True, IPPROTO_UDP] = keeper
    data = struct.pack(">HHHH", 1, 2, 30008, 0) + bytes(30000)

    out = Outgoing(ip4(2), IPPROTO_UDP, (data,), offload=Offload(0, 6, 1000), transport_size=8)
    here.send(kernel.loop.now_ns(), out)
    kernel.loop.settle()

    (came,) = keeper.packets
    assert (bytes(came.payload), came.segment_size, came.source) == (data, 1000, ip4(1))
    assert came.checksum_is_good and came.index == two.link("v").index


def test_virtio_header_about_no_packet_of_the_vlan_is_refused(world: World) -> None:
    for start in (0, 14, 17):
        head = struct.pack("<BBHHHH", 1, 0, 0, 0, start, 6)
        world.cable.received(head + request(ip4(1), TAG5))

    assert world.net.link("eth0.5").received == [0, 0]


def test_one_stands_on_another_with_two_tags(world: World) -> None:
    inner = world.net.add("q", "vlan", on(world.vlan), data=vlan(7, ETH_P_8021AD), up=True)
    world.net.address("q", ip4(9), 24)
    world.cable.taken()
    both = TAG5 + struct.pack(">HH", ETH_P_8021AD, 7)

    world.cable.hear(request(ip4(9), both))

    (answer,) = world.cable.taken()
    assert answer[12:20] == both and inner.interface.received[0] == 1


def test_packet_sockets_see_the_tag_beside_the_frame(world: World) -> None:
    seen: list[Frame] = []

    class Tap:
        def hear(self, frame: Frame) -> None:
            seen.append(frame)

    tap: Any = Tap()
    world.net.stack.taps[tap] = None
    world.cable.hear(request(ip4(1), TAG5))
    world.kernel.loop.settle()

    below, above = (frame for frame in seen if frame.kind != PACKET_OUTGOING)
    assert below.tag == (ETH_P_8021Q, 5) and below.ethertype == ETH_P_ARP
    assert below.data == request(ip4(1)) and below.whole == request(ip4(1), TAG5)
    assert above.tag is None and above.data == request(ip4(1))
    assert (below.index, above.index) == (world.cable.link.index, world.vlan.link.index)
    assert below.goes_up and not above.goes_up


def test_what_has_no_vlan_reaches_the_bridge_whose_port_it_is(world: World) -> None:
    world.net.add("br0", "bridge", up=True)
    world.net.set("eth0", u32(abi.IFLA_MASTER, world.net.link("br0").index))

    world.cable.hear(request(ip4(1), TAG5), request(ip4(1)))

    assert world.net.link("br0").received[0] == 1
    assert world.net.link("eth0.5").received[0] == 1


def test_vlan_of_a_bridge_hears_through_its_ports() -> None:
    world = World()
    world.net.add("br0", "bridge", up=True)
    other = Cable(world.net, "eth1", 3)
    world.net.turn("eth1")
    world.net.set("eth1", u32(abi.IFLA_MASTER, world.net.link("br0").index))
    world.net.add("br0.5", "vlan", on(world.net.made("br0")), data=VLAN5, up=True)
    world.net.address("br0.5", ip4(7), 24)
    other.taken()

    other.hear(request(ip4(7), TAG5))

    (answer,) = other.taken()
    assert answer[12:16] == TAG5 and answer[:6] == hardware(2)


def test_any_frames_are_taken_or_lost(world: World) -> None:
    world.net.add("q", "vlan", on(world.vlan), data=vlan(7), up=True)
    tags = st.lists(st.sampled_from([TAG5, TAG5[:2] + b"\0\7", b"\x88\xa8\0\5"]), max_size=4)
    heads = st.just(bytes(vnet.SIZE)) | st.binary(min_size=vnet.SIZE, max_size=vnet.SIZE)

    @given(heads, tags.map(b"".join), st.binary(max_size=60))
    def check(head: bytes, tag: bytes, rest: bytes) -> None:
        world.cable.received(head + ethernet.BROADCAST + hardware(2) + tag + rest)
        world.cable.received(head + rest)

    check()


# --- what follows what


def test_it_goes_up_and_down_with_what_is_below(world: World) -> None:
    link = world.net.link("eth0.5")
    world.net.turn("eth0", on=False)
    assert not link.is_up
    with pytest.raises(ENETDOWN):
        world.net.turn("eth0.5")
    world.net.turn("eth0")
    assert link.is_up
    world.net.turn("eth0.5", on=False)
    world.net.set("eth0", u32(abi.IFLA_MTU, 1400))
    assert not link.is_up


def test_loosely_bound_it_does_not() -> None:
    net = Net(Kernel())
    cable = Cable(net, "eth0", 1)
    flag = abi.VLAN_FLAG_LOOSE_BINDING
    loose = attribute(abi.IFLA_VLAN_FLAGS, abi.VLAN_FLAGS.pack(flag, flag))
    net.add("v", "vlan", on(cable), data=vlan(5, flags=loose), up=True)
    net.turn("eth0")
    net.turn("eth0", on=False)

    link, _ = net.link("v"), cable.taken()
    dropped = link.dropped
    net.made("v").link.pass_on(bytes(vnet.SIZE) + request(ip4(1)))
    assert link.is_up and cable.taken() == [] and link.dropped == dropped + 1


def test_carrier_is_that_of_what_is_below(world: World) -> None:
    link = world.net.link("eth0.5")
    assert attributes(world.net, "eth0.5")[abi.IFLA_OPERSTATE] == bytes([OPER_UP])
    world.cable.set_carrier(False)
    assert not link.has_carrier and not link.flags & abi.IFF_RUNNING
    assert attributes(world.net, "eth0.5")[abi.IFLA_OPERSTATE] == bytes([OPER_LOWERLAYERDOWN])
    world.cable.set_carrier(True)
    assert link.has_carrier


def test_mtu_is_no_larger_than_below(world: World) -> None:
    link = world.net.link("eth0.5")
    with pytest.raises(ERANGE):
        world.net.set("eth0.5", u32(abi.IFLA_MTU, 1501))
    with pytest.raises(EINVAL):
        world.net.add("v", "vlan", on(world.cable), u32(abi.IFLA_MTU, 1501), data=vlan(6))
    world.net.set("eth0", u32(abi.IFLA_MTU, 1400))
    assert link.mtu == 1400
    world.net.set("eth0", u32(abi.IFLA_MTU, 9000))
    assert link.mtu == 1400


def test_hardware_address_is_that_below_until_another_is_chosen(world: World) -> None:
    link, below = world.net.link("eth0.5"), world.net.link("eth0")
    set_hardware(world.net.stack, below, hardware(8))
    assert link.hardware == hardware(8) == world.vlan.link.hardware
    set_hardware(world.net.stack, link, hardware(9))
    set_hardware(world.net.stack, below, hardware(7))
    assert link.hardware == hardware(9)


def test_it_goes_with_what_is_below_and_is_told_first(world: World) -> None:
    world.net.add("q", "vlan", on(world.vlan), data=vlan(7))
    world.net.join(abi.RTNLGRP_LINK)

    world.net.remove("eth0")

    gone = [body for kind, body in world.net.told if kind == abi.RTM_DELLINK]
    names = [parse_attributes(body[abi.IFINFOMSG.size :])[abi.IFLA_IFNAME] for body in gone]
    assert names == [b"q\0", b"eth0.5\0", b"eth0\0"] and world.net.names() == []


def test_number_is_free_again_once_it_is_gone(world: World) -> None:
    world.net.remove("eth0.5")
    assert world.cable.vlans == {} and world.net.add("v", "vlan", on(world.cable), data=VLAN5)


def test_either_moves_to_another_namespace(world: World) -> None:
    other = Net(world.kernel)
    world.vlan.moved(other.stack, b"there")
    assert other.names() == ["there"] and world.net.names() == ["eth0"]
    told = attributes(other, "there")
    assert told[abi.IFLA_LINK] == world.cable.interface.index.to_bytes(4, "little")
    assert told[abi.IFLA_LINK_NETNSID] == bytes(4)
    other.turn("there")
    world.cable.hear(request(ip4(1), TAG5))
    assert other.link("there").received[0] == 1

    third = Net(world.kernel)
    world.cable.moved(third.stack, b"eth0")
    assert not other.link("there").is_up
    third.turn("eth0")
    assert other.link("there").is_up
    world.cable.hear(request(ip4(1), TAG5))
    assert other.link("there").received[0] == 2
    third.remove("eth0")
    assert other.names() == []


def test_who_waits_for_room_below_goes_on_in_every_namespace(world: World) -> None:
    room: list[int] = []
    other = Net(world.kernel)
    world.vlan.moved(other.stack, b"there")
    assert other.stack.ip is not None
    other.stack.ip.on_room = room.append

    world.cable.link.on_room()

    assert room == [world.vlan.link.index]


# --- what is told


def test_netlink_tells_of_it_as_linux_does(world: World) -> None:
    told = attributes(world.net, "eth0.5")
    info = parse_attributes(told[abi.IFLA_LINKINFO])
    data = parse_attributes(info[abi.IFLA_INFO_DATA])

    assert told[abi.IFLA_LINK] == world.cable.interface.index.to_bytes(4, "little")
    assert info[abi.IFLA_INFO_KIND] == b"vlan\0"
    assert data == {
        abi.IFLA_VLAN_PROTOCOL: b"\x81\0", abi.IFLA_VLAN_ID: b"\5\0",
        abi.IFLA_VLAN_FLAGS: struct.pack("<II", abi.VLAN_FLAG_REORDER_HDR, 0xFFFFFFFF),
    }  # fmt: skip
    assert world.vlan.attributes()["addr_assign_type"] == "2"


def test_proc_shows_it(world: World) -> None:
    head, line = config(world.net.stack)
    assert head.startswith("VLAN Dev name\t | VLAN ID\n")
    assert line == f"{'eth0.5':15}| 5  | eth0\n"
    text = shown(world.vlan)
    assert text.startswith("eth0.5  VID: 5\t REORDER_HDR: 1  dev->priv_flags: ")
    assert "\nDevice: eth0\nINGRESS priority mappings: 0:0 " in text


# --- what cannot be


@pytest.mark.parametrize(("data", "error"), [
    (b"", EINVAL),
    (vlan(4095), ERANGE),
    (vlan(6, 0x9100), EPROTONOSUPPORT),
    (VLAN5, EEXIST),
    (vlan(6, flags=attribute(abi.IFLA_VLAN_FLAGS, struct.pack("<II", 32, 32))), EINVAL),
    (vlan(6, flags=attribute(abi.IFLA_VLAN_FLAGS, b"")), ERANGE),
    (vlan(6, flags=attribute(abi.IFLA_VLAN_FLAGS, struct.pack("<II", 2, 2))), EOPNOTSUPP),
    (vlan(6, flags=attribute(abi.IFLA_VLAN_FLAGS, struct.pack("<II", 0, 1))), EOPNOTSUPP),
    (vlan(6, flags=attribute(abi.IFLA_VLAN_EGRESS_QOS, b"")), EOPNOTSUPP),
])  # fmt: skip
def test_what_is_wrong_is_refused(world: World, data: bytes, error: type[Errno]) -> None:
    with pytest.raises(error):
        world.net.add("v", "vlan", on(world.cable), data=data)

    assert world.net.names() == ["eth0", "eth0.5"]


def test_it_needs_an_interface_that_has_vlans(world: World) -> None:
    for more, error in (
        ((), EINVAL), ((u32(abi.IFLA_LINK, 99),), ENODEV), ((u32(abi.IFLA_LINK, 1),), EOPNOTSUPP),
    ):  # fmt: skip
        with pytest.raises(error):
            world.net.add("v", "vlan", *more, data=vlan(6))


def test_where_the_lower_one_is_down_none_is_made_that_is_up(world: World) -> None:
    world.net.turn("eth0", on=False)

    with pytest.raises(ENETDOWN):
        world.net.add("v", "vlan", on(world.cable), data=vlan(6), up=True)

    assert world.net.names() == ["eth0", "eth0.5"]


def test_where_what_leaves_is_judged_none_stands_on_what_leads_outside(world: World) -> None:
    other, judge = Net(world.kernel), SimpleNamespace()
    world.net.stack.egress = cast("Any", judge)
    number = u32(abi.IFLA_LINK_NETNSID, other.stack.number_of(world.net.stack))

    for net, more in ((world.net, b""), (other, number)):
        with pytest.raises(EPERM):
            net.add("v", "vlan", on(world.cable) + more, data=vlan(6))
        assert "v" not in net.names()


def test_where_what_leaves_is_judged_they_stand_on_what_stays_inside(world: World) -> None:
    world.net.stack.egress = cast("Any", SimpleNamespace())
    lower = world.net.add("d", "dummy")
    made = world.net.add("v", "vlan", on(lower), data=vlan(6))
    assert made.link.stays_inside and world.net.made("d").link.stays_inside
    assert not world.vlan.link.stays_inside


def test_bridges_on_vlans_of_bridges_do_not_multiply_frames_without_an_end() -> None:
    net = Net(Kernel())
    lower = net.add("b0", "bridge", up=True)
    leaf = net.add("d", "dummy", u32(abi.IFLA_MASTER, lower.interface.index), up=True)
    net.turn("b0")
    number = 1
    while True:
        upper = net.add(f"b{number}", "bridge", up=True)
        master = u32(abi.IFLA_MASTER, upper.interface.index)
        try:
            for each in range(20):
                own = vlan(each + 1)
                net.add(f"v{number}.{each}", "vlan", on(lower), master, data=own, up=True)
        except EMLINK:
            break
        lower, number = upper, number + 1
    assert number == 3
    leaf.interface.sent = [0, 0]
    upper.put(bytes(vnet.SIZE) + ethernet.BROADCAST + hardware(9) + b"\x08\x06" + bytes(46))
    assert leaf.interface.sent[0] == 2 * 20 * 20 <= MAX_COPIES


def test_no_more_stand_on_each_other_than_on_linux(world: World) -> None:
    below = world.vlan
    for number in range(MAX_LEVELS - 2):
        below = world.net.add(f"v{number}", "vlan", on(below), data=VLAN5)

    with pytest.raises(EMLINK):
        world.net.add("last", "vlan", on(below), data=VLAN5)


def test_bridge_is_no_port_of_what_stands_on_it(world: World) -> None:
    bridge = world.net.add("br0", "bridge", up=True)
    world.net.add("br0.5", "vlan", on(bridge), data=VLAN5)
    other = world.net.add("br1", "bridge")

    with pytest.raises(EBUSY):
        world.net.set("br0.5", u32(abi.IFLA_MASTER, bridge.interface.index))
    world.net.set("br0.5", u32(abi.IFLA_MASTER, other.interface.index))
    assert world.net.made("br0.5").upper is not None


def test_flags_are_changed_later(world: World) -> None:
    flag = abi.VLAN_FLAG_LOOSE_BINDING
    data = attribute(abi.IFLA_VLAN_FLAGS, abi.VLAN_FLAGS.pack(flag, flag))
    info = attribute(abi.IFLA_INFO_KIND, b"vlan\0") + attribute(abi.IFLA_INFO_DATA, data)

    world.net.set("eth0.5", attribute(abi.IFLA_LINKINFO, info))

    assert world.vlan.vlan_flags == abi.VLAN_FLAG_REORDER_HDR | flag
