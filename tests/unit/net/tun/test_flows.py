"""Which queue gets a frame."""

from __future__ import annotations

import pytest

from sentry.net.link import vnet
from sentry.net.tun.flows import queue_of

QUEUES = 8


def packet(version: int, port: int, rest: bytes = b"") -> bytes:
    head = bytes([version << 4]) + bytes(19 if version == 4 else 39)
    return head + port.to_bytes(2) + bytes(2) + rest


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("link_size", [0, 14])
def test_all_of_a_flow_goes_to_one_queue_and_flows_to_many(version: int, link_size: int) -> None:
    before = bytes(vnet.SIZE + link_size)
    chosen = [queue_of(before + packet(version, port), link_size, QUEUES) for port in range(200)]
    again = [
        queue_of(before + packet(version, port, b"more"), link_size, QUEUES)
        for port in range(200)
    ]  # fmt: skip
    assert chosen == again and set(chosen) == set(range(QUEUES))


@pytest.mark.parametrize("data", [b"", b"x", b"\x45", bytes(100)])
def test_what_is_no_packet_has_one_too(data: bytes) -> None:
    assert queue_of(bytes(vnet.SIZE) + data, 0, QUEUES) in range(QUEUES)
