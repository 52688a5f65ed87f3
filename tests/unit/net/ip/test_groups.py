"""IGMP and MLD on a link."""

from __future__ import annotations

import pytest

from sentry.net.ip import ipv4, ipv6
from sentry.net.ip.checksum import checksum, pseudo_sum
from sentry.net.ip.ipv6 import Header
from tests.unit.net.wired import INDEX, SECOND_NS, Host, hardware, ip4, ip6, local6

GROUP4, GROUP6 = b"\xef\1\2\3", b"\xff\x02" + bytes(13) + b"\x77"
ALL4, ALL6 = b"\xe0\0\0\x01", b"\xff\x02" + bytes(13) + b"\x01"
NOBODY4, NOBODY6 = bytes(4), bytes(16)


@pytest.fixture
def host() -> Host:
    return Host(1)


def query4(group: bytes, code: int, more: bytes = bytes(4), ttl: int = 1) -> bytes:
    body = bytes([0x11, code, 0, 0]) + group + more
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    to = group if any(group) else ALL4
    head = ipv4.build(ipv4.Header(24, 24 + len(body), 0, 0, 0, ttl, 2, ip4(2), to),
                      b"\x94\x04\0\0")  # fmt: skip
    return b"\x01\0\x5e" + to[1:] + hardware(2) + b"\x08\0" + head + body


def query6(group: bytes, ms: int, more: bytes = bytes(4), source: bytes = local6(2)) -> bytes:
    body = bytes([130, 0, 0, 0]) + ms.to_bytes(2) + bytes(2) + group + more
    to = group if any(group) else ALL6
    total = checksum(body, pseudo_sum(source, to, 58, len(body)))
    body = b"\x3a\0\5\2\0\0\1\0" + body[:2] + total.to_bytes(2) + body[4:]
    head = ipv6.build(Header(0, 0, len(body), 0, 1, source, to))
    return b"\x33\x33" + to[12:] + hardware(2) + b"\x86\xdd" + head + body


def said4(host: Host) -> list[tuple[bytes, bytes]]:
    """(target, message) of IGMP, whose sums are right."""
    found = []
    for frame in host.frames():
        if frame[12:14] == b"\x08\0":
            assert frame[14:16] == b"\x46\xc0" and frame[22:24] == b"\x01\x02"
            assert frame[26:30] == ip4(1) and frame[34:38] == b"\x94\x04\0\0"
            assert frame[:6] == b"\x01\0\x5e" + frame[31:34] and not checksum(frame[38:])
            found.append((frame[30:34], frame[38:40] + frame[42:]))
    return found


def said6(host: Host) -> list[tuple[bytes, bytes]]:
    """The same of MLD."""
    found = []
    for frame in host.frames():
        source, to, body = frame[22:38], frame[38:54], frame[62:]
        assert frame[20:22] == b"\0\x01" and frame[54:62] == b"\x3a\0\5\2\0\0\1\0"
        assert source == local6(1) and frame[:6] == b"\x33\x33" + to[12:]
        assert not checksum(body, pseudo_sum(source, to, 58, len(body)))
        found.append((to, body[:2] + body[4:]))
    return found


def test_join_leave_and_queries_of_igmp(host: Host) -> None:
    groups = host.layer.groups
    groups.joined(0, GROUP4, INDEX)
    groups.joined(0, ALL4, INDEX)
    groups.joined(0, GROUP4, 9)
    report = b"\x22\0" + bytes(2) + b"\0\1"
    listeners = b"\xe0\0\0\x16"
    assert said4(host) == [(listeners, report + b"\4\0\0\0" + GROUP4)]
    host.layer.timeout(SECOND_NS)
    said4(host)
    host.hear(query4(NOBODY4, 10, ttl=2))
    assert host.layer.timer() is None
    host.hear(query4(NOBODY4, 10), SECOND_NS)
    host.layer.timeout(2 * SECOND_NS)
    assert said4(host) == [(listeners, report + b"\2\0\0\0" + GROUP4)]
    host.hear(query4(GROUP4, 10, b""), SECOND_NS)
    host.layer.is_joined = lambda ip, index: True
    host.hear(query4(GROUP4, 10, b""), SECOND_NS)
    host.layer.timeout(2 * SECOND_NS)
    assert said4(host) == [(GROUP4, b"\x16\0" + GROUP4)]
    groups.left(2 * SECOND_NS, GROUP4, INDEX)
    assert said4(host) == [(b"\xe0\0\0\x02", b"\x17\0" + GROUP4)]


def test_join_leave_and_queries_of_mld(host: Host) -> None:
    groups = host.layer.groups
    groups.joined(0, GROUP6, INDEX)
    groups.joined(0, ALL6, INDEX)
    report = b"\x8f\0" + bytes(2) + b"\0\1"
    listeners = b"\xff\x02" + bytes(13) + b"\x16"
    assert said6(host) == [(listeners, report + b"\4\0\0\0" + GROUP6)]
    host.layer.timeout(SECOND_NS)
    said6(host)
    host.hear(query6(NOBODY6, 100, source=ip6(2)), SECOND_NS)
    assert host.layer.timer() is None
    host.hear(query6(NOBODY6, 100), SECOND_NS)
    host.layer.timeout(2 * SECOND_NS)
    ((to, body),) = said6(host)
    own = ipv6.solicited_node(ip6(1))
    assert to == listeners and body[4:6] == b"\0\2"
    assert {body[6:26], body[26:]} == {b"\2\0\0\0" + GROUP6, b"\2\0\0\0" + own}
    host.hear(query6(NOBODY6, 100, b""), SECOND_NS)
    host.layer.timeout(2 * SECOND_NS)
    assert sorted(said6(host)) == sorted(
        (group, b"\x83\0" + bytes(4) + group) for group in (GROUP6, own)
    )
    groups.left(2 * SECOND_NS, GROUP6, INDEX)
    all_routers = b"\xff\x02" + bytes(13) + b"\x02"
    assert said6(host) == [(all_routers, b"\x84\0" + bytes(4) + GROUP6)]


def test_link_that_comes_is_told_and_one_that_goes_is_forgotten(host: Host) -> None:
    groups = host.layer.groups
    groups.link_came(0, INDEX, [GROUP4])
    assert len(said4(host)) == 1
    groups.link_went(INDEX)
    assert groups.timer() is None


def test_broken_queries_say_nothing(host: Host) -> None:
    host.layer.groups.joined(0, GROUP4, INDEX)
    host.layer.timeout(SECOND_NS)
    whole = query4(NOBODY4, 10)
    for frame in (whole[:-5], whole[:40] + b"\1" + whole[41:], query6(NOBODY6, 100)[:-9]):
        host.hear(frame)
    assert host.layer.timer() is None
