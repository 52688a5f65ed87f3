"""An interface that a stack has from its start, with a router at the other end of its stream."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from sentry.abi.netlink import ARPHRD_ETHER, IFF_UP
from sentry.abi.socket import AF_INET6
from sentry.config import LinkConfig
from sentry.errors import EINVAL
from sentry.loop import HostOnly, Loop
from sentry.net.given import Given, hang_up, plug, unplug
from sentry.net.interfaces import Address, Interface
from sentry.net.ip import ipv6
from sentry.net.link import ndp
from sentry.net.netlink.notices import change_flags, rename
from sentry.net.stack import Stack
from sentry.net.virtual.dummy import FLAGS, Dummy
from tests.unit.net.ip.test_autoconf import advertised, prefix
from tests.unit.net.ip.test_discovery import message
from tests.unit.net.wired import ip4, ip6, local6

ROOM = 8 << 20
FAR4, FAR6 = b"\xc6\x33\x64\x01", b"\x20\x01\x0d\xb8\xff" + bytes(11)


class Log:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Kernel:
    def __init__(self) -> None:
        self.log = Log()
        self.loop = Loop(HostOnly(), self.failed)

    def failed(self, name: object, error: BaseException) -> None:
        raise error


class World:
    def __init__(self, gateway: bytes = ip4(1)) -> None:
        self.kernel = Kernel()
        self.stack = Stack(self.kernel, {})
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(20)
        config = LinkConfig(
            ours.detach(), 65520, ((ip4(7), 24), (ip6(7), 128)), ROOM, (gateway,)
        )
        self.given: Given = plug(self.stack, config)
        self.interface = self.given.interface

    def say(self, frame: bytes) -> None:
        self.theirs.send(len(frame).to_bytes(4) + frame)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.kernel.loop.call_soon(lambda: None)
            self.kernel.loop.turn()

    def advertise(self, *prefixes: bytes) -> None:
        body = advertised(1800, *prefixes)
        self.say(message(ndp.ROUTER_ADVERTISEMENT, body, local6(2), ipv6.ALL_NODES))

    def heard(self) -> list[bytes]:
        self.turn()
        data, found = self.theirs.recv(1 << 16), []
        while data:
            size = int.from_bytes(data[:4])
            found.append(data[4 : 4 + size])
            data = data[4 + size :]
        return found

    def addresses(self) -> list[bytes]:
        return [own.ip for own in self.interface.addresses]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.theirs.close()
    made.given.removed()


def test_it_is_up_with_what_was_said_of_it(world: World) -> None:
    assert (world.interface.name, world.interface.mtu) == ("eth0", 65520)
    first, local, last = world.addresses()
    assert (first, last) == (ip6(7), ip4(7)) and ipv6.is_link_local(local)
    layer = world.stack.ip
    assert layer is not None
    assert layer.path(0, FAR4).next_hop == ip4(1)
    assert layer.path(0, ip4(9)).next_hop == ip4(9)
    assert layer.is_local(ip6(7)) and layer.path_or_none(0, FAR6, 0) is None


def test_buffers_of_tcp_fit_into_the_room_that_there_is(world: World) -> None:
    assert world.stack.sysctls["net/ipv4/tcp_rmem"] == f"4096\t131072\t{ROOM // 8}"
    assert world.stack.tcp is not None and world.stack.tcp.settings.advmss == 16344


def test_without_a_router_all_are_neighbours() -> None:
    made = World(bytes(4))
    assert made.stack.ip is not None
    assert made.stack.ip.path(0, FAR4).next_hop == FAR4
    made.given.removed()
    made.theirs.close()


def test_router_is_asked_and_heeded(world: World) -> None:
    (asked,) = (each for each in world.heard() if each[54] == ndp.ROUTER_SOLICITATION)
    assert asked[:6] == bytes.fromhex("333300000002")
    world.advertise(prefix())
    layer = world.stack.ip
    assert layer is not None
    path = layer.path(0, FAR6)
    assert path.next_hop == local6(2) and path.source[:8] == prefix()[16:24]
    assert len(world.addresses()) == 4
    assert world.interface.received[0] == 1 and world.interface.sent == [1, len(asked)]


def test_addresses_of_routers_stand_where_they_came(world: World) -> None:
    """ipv6_link_dev_addr(): the newest of a scope is the first, whoever says it again."""
    world.advertise(prefix())
    routers, static, *rest = world.addresses()
    assert routers[:8] == prefix()[16:24] and static == ip6(7)
    world.interface.add(Address(AF_INET6, ip6(8), 128))
    world.advertise(prefix())
    assert world.addresses() == [ip6(8), routers, ip6(7), *rest]
    world.advertise(prefix(valid_s=0, preferred_s=0), prefix(b"\xfd\x01" + bytes(14)))
    newest, *others = world.addresses()
    assert newest[:2] == b"\xfd\x01" and others[:2] == [ip6(8), routers]


def test_what_routers_say_goes_as_the_interface_goes_down(world: World) -> None:
    world.advertise(prefix())
    change_flags(world.stack, world.interface, 0, IFF_UP)
    assert world.addresses() == [ip4(7)] and not world.stack.routes.added
    world.advertise(prefix())
    assert world.addresses() == [ip4(7)]
    change_flags(world.stack, world.interface, IFF_UP, IFF_UP)
    world.heard()
    world.advertise(prefix())
    assert len(world.addresses()) == 3 and len(world.stack.routes.added) == 2


def test_routes_of_programs_stay_when_those_of_routers_change(world: World) -> None:
    before = list(world.stack.routes.added)
    world.advertise(prefix(), prefix(b"\xfd\x01" + bytes(14)))
    world.advertise(prefix(valid_s=0, preferred_s=0))
    added = world.stack.routes.added
    assert added[: len(before)] == before
    told = [each.destination for each in added[len(before) :]]
    assert told == [b"\xfd\x01" + bytes(14), bytes(16)]


def test_it_is_moved_nowhere(world: World) -> None:
    with pytest.raises(EINVAL):
        world.given.moved(Stack(world.kernel, {}), b"eth0")


def test_end_of_the_stream_is_a_pulled_cable(world: World) -> None:
    world.theirs.close()
    world.turn()
    assert not world.interface.has_carrier and world.interface.is_up
    assert world.kernel.log.text == "eth0: the other end: it has ended\n"


def test_who_hangs_up_closes_the_stream_once(world: World) -> None:
    """The number of one that has ended may be another descriptor by then."""
    hang_up(world.stack)
    assert not world.theirs.recv(1)
    held = {os.open(os.devnull, os.O_RDONLY) for _ in range(3)}
    hang_up(world.stack)
    for fd in held:
        os.close(fd)


def test_a_copys_card_has_a_name_of_its_own(world: World) -> None:
    """A program may have given another interface that of the one that was pulled out."""
    stack = world.stack
    change_flags(stack, world.interface, 0, IFF_UP)
    rename(stack, world.interface, b"uplink0")
    index, mac = stack.interfaces.free_index(), bytes(6)
    other = Dummy(stack, Interface(index, "eth0", ARPHRD_ETHER, FLAGS, 1500, mac, mac, 1000))
    unplug(stack)
    ours, theirs = socket.socketpair()
    made = plug(stack, LinkConfig(ours.detach(), 65520, (), ROOM, ()))
    assert [each.name for each in stack.interfaces] == ["lo", "eth0", "eth1"]
    world.given = made
    other.removed()
    theirs.close()


def test_stream_ends_with_the_namespace() -> None:
    made = World()
    made.given.removed()
    made.turn()
    assert not made.theirs.recv(1) and not made.kernel.loop.watches
    made.theirs.close()
