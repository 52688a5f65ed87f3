"""Several packet sockets that hear as one."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.abi.socket import ETH_P_ALL, ETH_P_IP, ETH_P_IPV6
from sentry.errors import EALREADY, EINVAL, ENOSPC
from sentry.net.packet_fanout import Fanout, flow_hash, join, leave
from sentry.net.packets import Frame


def sock(hears: tuple[int, int] = (ETH_P_ALL, 0)) -> Any:
    return SimpleNamespace(fanout=None, hears=hears, has_room=True)


def wanted(identifier: int, kind: int, flags: int = 0, most: int | None = None) -> bytes:
    head = struct.pack("<HH", identifier, kind | flags)
    return head if most is None else head + struct.pack("<I", most)


def group(kind: int, count: int, flags: int = 0) -> tuple[Fanout, list[Any]]:
    groups: dict[int, Fanout] = {}
    socks = [sock() for _ in range(count)]
    for each in socks:
        join(groups, each, wanted(1, kind, flags))
    return groups[1], socks


def frame(data: bytes = bytes(60), ethertype: int = ETH_P_IP) -> Frame:
    return Frame(data, ethertype, 0, len(data))


def packet4(source: int, source_port: int, target: int, target_port: int) -> Frame:
    head = bytearray(20)
    head[0], head[9], head[15], head[19] = 0x45, 17, source, target
    return frame(bytes(14) + head + struct.pack(">HH4x", source_port, target_port))


def test_group_ends_with_its_last_member() -> None:
    groups: dict[int, Fanout] = {}
    first, second = sock(), sock()
    join(groups, first, wanted(7, abi.PACKET_FANOUT_LB))
    join(groups, second, wanted(7, abi.PACKET_FANOUT_LB))
    leave(groups, first)
    assert groups[7].members == [second] and first.fanout is None
    leave(groups, second)
    leave(groups, second)
    assert not groups


def test_who_does_not_fit_is_refused() -> None:
    groups: dict[int, Fanout] = {}
    member = sock()
    join(groups, member, wanted(7, abi.PACKET_FANOUT_LB, most=1))
    with pytest.raises(EALREADY):
        join(groups, member, wanted(8, abi.PACKET_FANOUT_LB))
    with pytest.raises(ENOSPC):
        join(groups, sock(), wanted(7, abi.PACKET_FANOUT_LB))
    for other, value in (
        (sock(), wanted(7, abi.PACKET_FANOUT_HASH)),
        (sock(), wanted(7, abi.PACKET_FANOUT_LB, abi.PACKET_FANOUT_FLAG_DEFRAG)),
        (sock(), wanted(7, abi.PACKET_FANOUT_LB, most=2)),
        (sock((ETH_P_IP, 0)), wanted(7, abi.PACKET_FANOUT_LB)),
        (sock((0, 0)), wanted(9, abi.PACKET_FANOUT_LB)),
        (sock(), wanted(9, 8)),
        (sock(), wanted(9, abi.PACKET_FANOUT_ROLLOVER, abi.PACKET_FANOUT_FLAG_ROLLOVER)),
        (sock(), wanted(9, abi.PACKET_FANOUT_LB, abi.PACKET_FANOUT_FLAG_UNIQUEID)),
        (sock(), wanted(9, abi.PACKET_FANOUT_LB, most=1 << 17)),
        (sock(), b"12345"),
    ):
        with pytest.raises(EINVAL):
            join(groups, other, value)
    assert list(groups) == [7]


def test_new_id_is_one_that_nobody_has() -> None:
    groups: dict[int, Fanout] = {}
    join(groups, sock(), wanted(1, abi.PACKET_FANOUT_LB))
    made = sock()
    join(groups, made, wanted(0, abi.PACKET_FANOUT_LB, abi.PACKET_FANOUT_FLAG_UNIQUEID))
    assert made.fanout.identifier == 2 and made.fanout.number == 2 | abi.PACKET_FANOUT_LB << 16


def test_each_frame_has_one_who_hears_it() -> None:
    made, socks = group(abi.PACKET_FANOUT_LB, 3)
    heard = []
    for _ in range(6):
        one = frame()
        heard += [number for number, each in enumerate(socks) if made.chosen(one) is each]
    assert sorted(heard) == [0, 0, 1, 1, 2, 2]
    made, socks = group(abi.PACKET_FANOUT_RND, 2)
    assert {id(made.chosen(frame())) for _ in range(200)} == {id(each) for each in socks}


def test_both_ways_of_a_flow_have_the_same_one() -> None:
    there, back = packet4(1, 5000, 2, 80), packet4(2, 80, 1, 5000)
    assert flow_hash(there) == flow_hash(back)
    assert len({flow_hash(packet4(1, port, 2, 80)) for port in range(100)}) > 90
    made, _ = group(abi.PACKET_FANOUT_HASH, 5)
    assert made.chosen(there) is made.chosen(back)


def test_any_bytes_have_a_hash() -> None:
    for size in range(80):
        for kind in (ETH_P_IP, ETH_P_IPV6, 0x1234):
            flow_hash(frame(b"\xff" * size, kind))


def test_who_has_no_room_is_passed_over() -> None:
    made, socks = group(abi.PACKET_FANOUT_ROLLOVER, 3)
    assert made.chosen(frame()) is socks[0]
    socks[0].has_room = False
    assert made.chosen(frame()) is socks[1]
    made, socks = group(abi.PACKET_FANOUT_LB, 2, abi.PACKET_FANOUT_FLAG_ROLLOVER)
    socks[1].has_room = False
    assert made.chosen(frame()) is socks[0]
