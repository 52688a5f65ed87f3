"""Sockets of an image: what no program could have made is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN
from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.inet.tcp import TcpSocket
from sentry.net.inet.tcp_options import MIN_WINDOW
from sentry.net.namespace import NetNamespace
from sentry.net.sockfs import new_location
from sentry.state.loader import Loader
from sentry.state.pages import Damaged
from sentry.state.records import MOST, TcpEnd
from sentry.state.sockets import TIMEOUTS, Tying, _filled, common
from sentry.vfs.interface import Owner
from tests.world import World

HERE = MAPPED + bytes([127, 0, 0, 1]), 7000
LISTENER = TcpEnd(2, state=abi.BPF_TCP_LISTEN, local=HERE, has_port=True, accepted=[1])
CONNECTED = TcpEnd(2, state=abi.BPF_TCP_ESTABLISHED, local=HERE, remote=HERE, peer=1)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def tcp(world: World) -> TcpSocket:
    stack = NetNamespace(world.kernel, {}).stack
    location = new_location(world.kernel.vfs, Owner(0, 0))
    return TcpSocket(location, abi.AF_INET, abi.IPPROTO_TCP, stack)


def loader(capability: int = CAP_NET_ADMIN) -> Any:
    rights = SimpleNamespace(has=lambda asked: asked == capability)
    return SimpleNamespace(
        snapshot=SimpleNamespace(remains=[]), rights=rights, is_others=lambda sock: False
    )


def load(sock: TcpSocket, record: TcpEnd, capability: int = CAP_NET_ADMIN) -> None:
    _filled(sock, record)
    files: Any = SimpleNamespace(loader=loader(capability))
    Tying(files).tie(sock, record)


def test_port_that_another_container_takes_while_sockets_are_made_is_refused(
    world: World,
) -> None:
    """Programs of a pod run between two sockets of a snapshot."""
    net = world.kernel.first.net
    location = new_location(world.kernel.vfs, Owner(0, 0))
    socks = [TcpSocket(location, abi.AF_INET, abi.IPPROTO_TCP, net.stack) for _ in range(3)]
    for sock in socks:
        sock.local, sock.has_port = Endpoint(*HERE), True
    found: Any = Loader.__new__(Loader)
    found._net, found._with_ports = net, set()
    found.snapshot = SimpleNamespace(remains=[])
    tying = Tying(SimpleNamespace(loader=found))  # type: ignore[arg-type]
    tying._claim(socks[0], adopted=False)
    tying._claim(socks[1], adopted=True)  # one that it has accepted
    other = TcpSocket(location, abi.AF_INET, abi.IPPROTO_TCP, net.stack)
    other.local = Endpoint(HERE[0], 7001)
    other.ports.claim(other, other.local, stream=True)
    socks[2].local = Endpoint(HERE[0], 7001)
    with pytest.raises(Damaged, match="port 7001 is another container's"):
        tying._claim(socks[2], adopted=False)


@pytest.mark.parametrize("record", [LISTENER, CONNECTED])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_tcp_connection_stays_in_its_network_namespace(
    world: World, record: TcpEnd, is_elsewhere: bool
) -> None:
    own, other = (NetNamespace(world.kernel, {}).stack for _ in range(2))
    one, two = (
        TcpSocket(new_location(world.kernel.vfs, Owner(0, 0)), abi.AF_INET, abi.IPPROTO_TCP, stack)
        for stack in (own, other if is_elsewhere else own)
    )
    one.has_port = record.has_port
    files: Any = SimpleNamespace(made=[one, two], loader=loader())
    if is_elsewhere:
        with pytest.raises(Damaged, match="between two network namespaces"):
            Tying(files).tie(one, record)
    else:
        Tying(files).tie(one, record)
        assert two in (one.peer, *one._accepted)


@pytest.mark.parametrize(
    "record",
    [
        TcpEnd(2, local=HERE, values=[(abi.TCP_DEFER_ACCEPT, 1 << 62)]),
        TcpEnd(2, local=HERE, values=[(abi.TCP_KEEPINTVL, -5)]),
        TcpEnd(2, local=HERE, values=[(abi.TCP_TIMESTAMP, 7)]),
        TcpEnd(2, local=HERE, values=[(9999, 1)]),
        TcpEnd(2, local=HERE, ip_options=[(abi.IP_TTL, 256)]),
        TcpEnd(2, local=HERE, ipv6_options=[(abi.IPV6_UNICAST_HOPS, -2)]),
        TcpEnd(2, local=HERE, numbers=[(abi.SO_RCVLOWAT, -(1 << 40))]),
        TcpEnd(2, local=HERE, numbers=[(abi.SO_BUSY_POLL, -1)]),
    ],
)
def test_an_option_that_no_program_can_have_set_is_damaged(world: World, record: TcpEnd) -> None:
    with pytest.raises(Damaged, match="option"):
        load(tcp(world), record)


def test_options_are_what_setsockopt_keeps(world: World) -> None:
    sock = tcp(world)
    rate = (1 << 32) - 2
    load(
        sock,
        TcpEnd(
            2, local=HERE,
            values=[(abi.TCP_WINDOW_CLAMP, -1), (abi.TCP_KEEPIDLE, 9), (abi.TCP_TIMESTAMP, 0)],
            ip_options=[(abi.IP_TTL, 7)],
            numbers=[(abi.SO_RCVLOWAT, -1), (abi.SO_MAX_PACING_RATE, rate), (abi.SO_MARK, rate)],
        ),
    )  # fmt: skip
    assert sock.tcp.values[abi.TCP_WINDOW_CLAMP] == MIN_WINDOW
    assert sock.tcp.values[abi.TCP_KEEPIDLE] == 9 and sock.hops == 7
    assert sock.numbers[abi.SO_RCVLOWAT] == 0x7FFFFFFF
    assert (sock.numbers[abi.SO_MAX_PACING_RATE], sock.numbers[abi.SO_MARK]) == (rate, -2)


@pytest.mark.parametrize(
    ("capability", "kept"),
    [(CAP_NET_ADMIN, (7, 1)), (CAP_NET_RAW, (7, 1)), (CAP_SYS_ADMIN, (0, 0))],
)
def test_options_that_need_a_capability_are_those_of_a_container_with_it(
    world: World, capability: int, kept: tuple[int, int]
) -> None:
    sock = tcp(world)
    options = [(abi.IP_TRANSPARENT, 1)]
    load(sock, TcpEnd(2, local=HERE, ip_options=options, numbers=[(abi.SO_MARK, 7)]), capability)
    assert (sock.numbers.get(abi.SO_MARK, 0), sock.ip_options[abi.IP_TRANSPARENT]) == kept


def test_a_time_out_behind_the_end_of_clocks_can_be_read_again(world: World) -> None:
    sock = tcp(world)
    sock.rcvtimeo_ns = 1 << 80
    saver: Any = SimpleNamespace(namespaces=SimpleNamespace(net=lambda stack: None))
    found = common(saver, sock)
    assert [found[name] for name in TIMEOUTS] == [MOST, None]
