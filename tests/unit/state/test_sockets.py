"""Sockets of an image: what no program could have made is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.net.inet.address import MAPPED
from sentry.net.inet.tcp import TcpSocket
from sentry.net.namespace import NetNamespace
from sentry.net.sockfs import new_location
from sentry.state.pages import Damaged
from sentry.state.records import TcpEnd
from sentry.state.sockets import Tying
from sentry.vfs.interface import Owner
from tests.world import World

HERE = MAPPED + bytes([127, 0, 0, 1]), 7000
LISTENER = TcpEnd(2, state=abi.BPF_TCP_LISTEN, local=HERE, has_port=True, accepted=[1])
CONNECTED = TcpEnd(2, state=abi.BPF_TCP_ESTABLISHED, local=HERE, remote=HERE, peer=1)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


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
    loader = SimpleNamespace(snapshot=SimpleNamespace(remains=[]))
    files: Any = SimpleNamespace(made=[one, two], loader=loader)
    if is_elsewhere:
        with pytest.raises(Damaged, match="between two network namespaces"):
            Tying(files).tie(one, record)
    else:
        Tying(files).tie(one, record)
        assert two in (one.peer, *one._accepted)
