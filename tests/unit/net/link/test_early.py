"""What C finds in frames is what the long way finds; whoever is led to by it is who was before."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentry.abi.poll import EPOLLIN
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
)
from sentry.abi.virtio import VIRTIO_NET_HDR_GSO_UDP_L4
from sentry.net.frame import show_link_frame
from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.link import arp, ethernet, uplink, vnet
from sentry.net.link.early import KEY_SIZE, RECORD, Segment, key_of
from sentry.net.tcp.segment import ACK, FIN, PSH, RST, SYN, parse
from sentry.platform._native import ffi, lib
from tests.unit.net.streams import ByUplink, Streams, receive
from tests.unit.net.wired import hardware, ip4, ip6

CHECKED = bytes([2]) + bytes(9)
SLOT = 4096
STAMPS = bytes([1, 1, 8, 10]) + struct.pack(">II", 77, 88)
FAMILIES = pytest.mark.parametrize("family", [AF_INET, AF_INET6])


def segment(
    family: int, payload: bytes = b"", options: bytes = STAMPS, flags: int = ACK,
    seq: int = 5, window: int = 7, port: int = 80,
) -> bytes:  # fmt: skip
    """A frame without its virtio header, with right sums."""
    source, target = (ip4(2), ip4(1)) if family == AF_INET else (ip6(2), ip6(1))
    size = 20 + len(options)
    tcp = struct.pack(">HHIIBBHHH", port, 4000, seq, 6, size << 2, flags, window, 0, 0)
    tcp += options + payload
    total = checksum(tcp, pseudo_sum(source, target, IPPROTO_TCP, len(tcp)))
    return packed(family, IPPROTO_TCP, tcp[:16] + total.to_bytes(2) + tcp[18:])


def datagram(
    family: int, payload: bytes = b"", more: bytes = b"", *, has_sum: bool = True
) -> bytes:
    """The same of UDP, with `more` in the packet behind it."""
    source, target = (ip4(2), ip4(1)) if family == AF_INET else (ip6(2), ip6(1))
    udp = struct.pack(">HHHH", 53, 4000, 8 + len(payload), 0) + payload
    total = checksum(udp, pseudo_sum(source, target, IPPROTO_UDP, len(udp))) or 0xFFFF
    sums = total.to_bytes(2) if has_sum else bytes(2)
    return packed(family, IPPROTO_UDP, udp[:6] + sums + udp[8:] + more)


def packed(family: int, protocol: int, body: bytes) -> bytes:
    """In a packet, in a frame."""
    source, target = (ip4(2), ip4(1)) if family == AF_INET else (ip6(2), ip6(1))
    if family == AF_INET:
        size = 20 + len(body)
        ip = ipv4.build(ipv4.Header(20, size, 0xB2, 0, 0x4000, 63, protocol, source, target))
    else:
        ip = ipv6.build(ipv6.Header(0xB2, 0, len(body), protocol, 63, source, target))
    kind = ETH_P_IP if family == AF_INET else ETH_P_IPV6
    return ethernet.build(hardware(1), hardware(2), kind) + ip + body


def found_in(frame: bytes, size: int | None = None) -> Segment | None:
    """What C says, which does not look behind the end."""
    slots = ffi.new("uint8_t[]", frame.ljust(SLOT, b"\xaa"))
    sizes = ffi.new("uint32_t[]", [len(frame) if size is None else size])
    records = ffi.new("struct early[]", 1)
    some = lib.uplink_early(slots, SLOT, 1, sizes, hardware(1), records)
    record: Segment = RECORD.unpack(bytes(ffi.buffer(records)))
    assert some == bool(record[0])
    return record if some else None


def runs_in(*frames: bytes) -> list[list[int]]:
    """Which frames of a batch are one segment, as C says, each by its number."""
    count = len(frames)
    slots = ffi.new("uint8_t[]", b"".join((CHECKED + each).ljust(SLOT) for each in frames))
    sizes = ffi.new("uint32_t[]", [len(CHECKED + each) for each in frames])
    records = ffi.new("struct early[]", count)
    lib.uplink_early(slots, SLOT, count, sizes, hardware(1), records)
    all_found: list[Segment] = list(RECORD.iter_unpack(bytes(ffi.buffer(records))))
    runs = []
    for number, found in enumerate(all_found):
        if found[15]:
            continue
        run = [number]
        while following := all_found[run[-1]][14]:
            assert all_found[following][15] == number + 1
            run.append(following)
        assert len(run) == found[13]
        runs.append(run)
    return runs


def check(frame: bytes) -> bool:
    """What C finds the long way finds, too; whether it finds something."""
    found = found_in(frame)
    if found is None:
        return False
    kind, flags, tos, has_stamps, window, begin, end, seq, ack, value, echo, key, ttl = found[:13]
    assert found[13:] == (1, 0, 0)
    link = ethernet.parse(frame, vnet.SIZE)
    about = vnet.parse(frame)
    assert link is not None and about is not None and link.target == hardware(1)
    inside = memoryview(frame)[link.start :]
    assert link.ethertype == (ETH_P_IP if kind == 4 else ETH_P_IPV6)
    if kind == 4:
        header4 = ipv4.parse(inside)
        assert header4 is not None and header4.size == 20 and not header4.is_fragment
        ip: Any = header4
        body = inside[20 : header4.total]
        protocol, hops = header4.protocol, header4.ttl
    else:
        header6 = ipv6.parse_quoted(inside)  # addresses that cannot be are no connection's
        assert header6 is not None
        ip = header6
        body = inside[40 : 40 + header6.payload]
        protocol, hops = header6.following, header6.hops
    assert (tos, ttl) == (ip.tos, hops) and len(key) == KEY_SIZE
    assert key == key_of(ip.source, ip.target, bytes(body[:4]), protocol)
    if protocol == IPPROTO_UDP:
        size, given = struct.unpack_from(">HH", body, 4)
        assert 8 <= size <= len(body) and given and not about.segment_size
        body = body[:size]
    before = pseudo_sum(ip.source, ip.target, protocol, len(body))
    assert about.checksum_is_good or not checksum(body, before)
    if protocol == IPPROTO_UDP:
        assert frame[begin:end] == bytes(body[8:])
        assert not (flags or has_stamps or window or seq or ack or value or echo)
        return True
    assert protocol == IPPROTO_TCP
    seg = parse(body, True, ip.tos & 3)
    assert seg is not None and seg.flags & ~(PSH | FIN) == ACK and not seg.sacks
    assert (seg.flags, seg.ecn, seg.window) == (flags, tos & 3, window)
    assert (seg.seq, seg.ack) == (seq, ack)
    assert seg.stamps == ((value, echo) if has_stamps else None)
    assert frame[begin:end] == bytes(seg.payload)
    return True


@FAMILIES
@pytest.mark.parametrize("begin", [CHECKED, bytes(10)])
@pytest.mark.parametrize("options", [b"", STAMPS])
@pytest.mark.parametrize("payload", [b"", b"odd", b"x" * 1448])
def test_ordinary_segment_is_found(
    family: int, begin: bytes, options: bytes, payload: bytes
) -> None:
    assert check(begin + segment(family, payload, options, ACK | PSH))
    assert check(begin + segment(family, payload, options) + bytes(6))  # the padding of a frame


@FAMILIES
@pytest.mark.parametrize("flags", [SYN, SYN | ACK, RST, RST | ACK, 0, PSH, ACK | 0x20, ACK | 0x40])
def test_what_is_unusual_is_not(family: int, flags: int) -> None:
    assert not check(CHECKED + segment(family, b"x", flags=flags))
    assert not check(CHECKED + segment(family, b"x", options=b"\1\1\5\12" + bytes(8)))
    for size in range(10 + len(segment(family))):
        assert found_in(CHECKED + segment(family), size) is None


@FAMILIES
@pytest.mark.parametrize("begin", [CHECKED, bytes(10)])
@pytest.mark.parametrize("payload", [b"", b"odd", b"x" * 1472])
def test_ordinary_datagram_is_found(family: int, begin: bytes, payload: bytes) -> None:
    assert check(begin + datagram(family, payload))
    assert check(begin + datagram(family, payload, b"more"))


@FAMILIES
def test_unusual_datagram_is_not(family: int) -> None:
    joined = struct.pack("<BBHHHH", 2, VIRTIO_NET_HDR_GSO_UDP_L4, 42, 100, 0, 0)
    assert not check(joined + datagram(family, b"x" * 200))
    assert not check(CHECKED + datagram(family, b"x", has_sum=False))
    assert not check(bytes(10) + datagram(family, b"xyz")[:-1] + b"!")
    for protocol in (IPPROTO_TCP, IPPROTO_UDP, 1, 58, 136):
        assert not check(CHECKED + packed(family, protocol, b"\0\0\0\7\0\7\1\1"))
    for size in range(10 + len(datagram(family))):
        assert found_in(CHECKED + datagram(family), size) is None


@FAMILIES
def test_wrong_sum_is_not_found_unless_it_need_not_be_looked_at(family: int) -> None:
    damaged = segment(family, b"xyz")[:-1] + b"!"
    assert not check(bytes(10) + damaged)
    assert check(CHECKED + damaged)


@given(
    frame=st.sampled_from(
        [segment(family, b"payload", options) for family in (AF_INET, AF_INET6)
         for options in (b"", STAMPS)]
        + [datagram(family, b"payload") for family in (AF_INET, AF_INET6)]
    ),
    begin=st.sampled_from([CHECKED, bytes(10), b"\1" + bytes(9), b"\2\5" + bytes(8)]),
    changes=st.lists(st.tuples(st.integers(0, 100), st.binary(min_size=1, max_size=4)), max_size=4),
    cut=st.integers(0, 60), more=st.binary(max_size=20),
)  # fmt: skip
@example(segment(AF_INET), CHECKED, [(14, b"\x46")], 0, b"")
@example(segment(AF_INET), CHECKED, [(16, b"\xff\xff")], 0, b"")
@example(segment(AF_INET6), CHECKED, [(18, b"\xff\xff")], 0, b"")
@example(segment(AF_INET), CHECKED, [(46, b"\xf0")], 0, b"")
@example(datagram(AF_INET), CHECKED, [(38, b"\xff\xff")], 0, b"")
def test_frames_of_any_bytes_are_found_as_the_long_way_finds_them(
    frame: bytes, begin: bytes, changes: list[tuple[int, bytes]], cut: int, more: bytes
) -> None:
    data = bytearray(frame)
    for at, what in changes:
        data[at : at + len(what)] = what
    check(begin + bytes(data[: len(data) - cut]) + more)


# --- several that are one


@FAMILIES
@pytest.mark.parametrize("options", [b"", STAMPS])
def test_segments_that_go_on_are_one(family: int, options: bytes) -> None:
    made = partial(segment, family, b"abc", options)
    assert runs_in(made(seq=5), made(seq=8), made(ACK | PSH | FIN, seq=11)) == [[0, 1, 2]]
    others = partial(made, port=81)
    assert runs_in(made(seq=5), others(seq=8), made(seq=8), others(seq=11)) == [[0, 2], [1, 3]]
    around = made(seq=0xFFFFFFFE), made(seq=1)
    assert runs_in(*around) == [[0, 1]]


@FAMILIES
def test_segments_that_say_something_else_are_not(family: int) -> None:
    made = partial(segment, family, b"abc")
    other_stamp = STAMPS[:7] + bytes([STAMPS[7] ^ 1]) + STAMPS[8:]
    for following in (
        made(seq=9), made(seq=7), made(seq=8, window=8), made(options=b"", seq=8),
        made(options=other_stamp, seq=8), made(seq=8, flags=RST | ACK), segment(family, seq=8),
    ):  # fmt: skip
        assert runs_in(made(seq=5), following) == [[0], [1]]
    assert runs_in(made(seq=5, flags=ACK | FIN), made(seq=8)) == [[0], [1]]
    assert runs_in(segment(family), made(seq=5)) == [[0], [1]]
    assert runs_in(datagram(family, b"abc"), datagram(family, b"abc")) == [[0], [1]]


def test_what_is_unusual_is_not_overtaken() -> None:
    made = partial(segment, AF_INET, b"abc")
    assert runs_in(made(seq=5), made(seq=8, flags=RST), made(seq=8)) == [[0], [1], [2]]
    assert runs_in(made(seq=5), made(seq=6), made(seq=8)) == [[0], [1], [2]]


def test_segments_that_are_one_have_a_ceiling() -> None:
    frames = [segment(AF_INET, bytes(4000), seq=5 + 4000 * number) for number in range(64)]
    assert runs_in(*frames) == [list(range(64))]
    long = 1 << 16
    slots = ffi.new("uint8_t[]", long * 6)
    for number in range(6):
        data = CHECKED + segment(AF_INET, bytes(60000), seq=5 + 60000 * number)
        ffi.memmove(slots + number * long, data, len(data))
    records = ffi.new("struct early[]", 6)
    sizes = ffi.new("uint32_t[]", [10 + len(segment(AF_INET, bytes(60000)))] * 6)
    assert lib.uplink_early(slots, long, 6, sizes, hardware(1), records) == 6
    found = RECORD.iter_unpack(bytes(ffi.buffer(records)))
    assert [each[13] for each in found][::4] == [4, 2]


# --- whom they lead to


@pytest.fixture
def line() -> Iterator[ByUplink]:
    made = ByUplink(Streams(1), Streams(2))
    yield made
    made.close()


def talk(line: ByUplink, left: Any, right: Any, text: bytes = b"hello") -> None:
    """Bytes go both ways."""
    for end, other in ((left, right), (right, left)):
        line.hosts[0].send(end, text)
        line.settle()
        assert receive(other) == text


@FAMILIES
def test_segments_of_a_known_connection_go_straight_to_it_and_count(
    line: ByUplink, family: int
) -> None:
    _, client, server = line.connected(family)
    talk(line, client, server)
    counters, row = line.hosts[1].stack.counters, "Ip." if family == AF_INET else "Ip6"
    assert list(line.hosts[1].link.early.values()) == [server.engine]
    before = dict(counters)
    line.hosts[1].layer.arrived = None  # the long way
    talk(line, client, server)
    count = counters["Tcp.InSegs"] - before["Tcp.InSegs"]  # the bytes, and acknowledgements
    assert count
    for name in (f"{row}InReceives", f"{row}InDelivers"):
        assert counters[name] - before[name] == count
    octets = "IpExt.InOctets" if family == AF_INET else "Ip6InOctets"
    headers = (20 if family == AF_INET else 40) + 32
    assert counters[octets] - before[octets] == count * headers + len(b"hello")


def test_batch_with_others_between_keeps_its_order(line: ByUplink) -> None:
    left, right = line.hosts
    _, client, server = line.connected()
    talk(line, client, server)
    for number in range(3):
        left.send(client, b"%d" % number)
        left.link.send_arp(arp.ArpPacket(arp.REQUEST, left.link.hardware, ip4(1), bytes(6), ip4(2)),
                           b"\xff" * 6)  # fmt: skip
    frames = left.link.take_outgoing(64, 1 << 20)
    assert len(frames) >= 4
    line.cards[right].hear(*frames)
    assert receive(server)[:1] == b"0"
    line.settle()
    while server.poll() & EPOLLIN:
        receive(server)


def batch(line: ByUplink, client: Any, count: int) -> list[bytes]:
    """So many segments, each of its number."""
    client.engine.connection.tuning.nodelay = True
    for number in range(count):
        line.hosts[0].send(client, b"%d" % number)
    frames: list[bytes] = line.hosts[0].link.take_outgoing(64, 1 << 20)
    assert len(frames) == count
    return frames


def test_segments_of_a_batch_that_go_on_are_one_step_and_all_count(line: ByUplink) -> None:
    right = line.hosts[1]
    _, client, server = line.connected()
    talk(line, client, server)
    frames = batch(line, client, 5)
    tally, counters = server.engine.connection.tally, right.stack.counters
    names = "Tcp.InSegs", "Ip.InReceives", "Ip.InDelivers"

    def counted() -> list[int]:
        return [tally.segs_in, tally.data_segs_in, *(counters[name] for name in names)]

    steps: list[int] = []
    take, before = right.tcp.take, counted()

    def counting(now_ns: int, engine: Any, seg: Any) -> None:
        steps.append(seg.count)
        take(now_ns, engine, seg)

    right.tcp.take = counting
    line.cards[right].hear(*frames)
    assert steps == [5]
    assert receive(server) == b"01234"
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [5] * 5


def test_segments_out_of_turn_are_acknowledged_each(line: ByUplink) -> None:
    right = line.hosts[1]
    _, client, server = line.connected()
    talk(line, client, server)
    first, *others = batch(line, client, 5)
    line.cards[right].hear(*others)
    assert len(right.link.outgoing) == len(others)
    line.cards[right].hear(first)
    assert receive(server) == b"01234"


@pytest.mark.parametrize("seed", range(10))
def test_stream_is_the_same_however_its_segments_come(line: ByUplink, seed: int) -> None:
    right, chance = line.hosts[1], random.Random(seed)
    _, client, server = line.connected()
    talk(line, client, server)
    frames = batch(line, client, 30)
    wanted = b"".join(b"%d" % number for number in range(30))
    coming = [*frames, *chance.choices(frames, k=20)]
    for at in chance.choices(range(len(coming)), k=seed):
        coming.insert(chance.randrange(len(coming)), coming.pop(at))
    got = b""
    while coming:
        count = chance.randint(1, uplink.FRAMES_IN)
        line.cards[right].hear(*coming[:count])
        del coming[:count]
        if server.poll() & EPOLLIN:
            got += receive(server)
    assert got == wanted


def test_table_is_empty_when_routes_change_or_the_connection_ends(line: ByUplink) -> None:
    _, client, server = line.connected()
    talk(line, client, server)
    link = line.hosts[1].link
    assert link.early
    line.hosts[1].refresh()
    assert not link.early
    talk(line, client, server)
    assert link.early
    client.decref()
    line.settle()
    server.decref()
    line.settle()
    assert not link.early


class Tap:
    def __init__(self, seen: list[bytes]) -> None:
        self._seen = seen

    def hear(self, frame: Any) -> None:
        self._seen.append(frame.data)


def test_who_looks_sees_each_segment(line: ByUplink) -> None:
    _, client, server = line.connected()
    talk(line, client, server)
    right = line.hosts[1]
    seen: list[bytes] = []
    right.stack.taps[Tap(seen)] = None
    right.link.seen = partial(show_link_frame, right.stack, right.link)
    talk(line, client, server)
    assert any(each[:6] == right.link.hardware and each.endswith(b"hello") for each in seen)
    right.stack.taps.clear()
    right.link.faults = SimpleNamespace(comes=lambda frame: False, goes=lambda frame: True)
    line.hosts[0].send(client, b"lost")
    line.settle()
    assert not server.poll() & EPOLLIN
