"""Which flow a packet belongs to."""

from __future__ import annotations

import struct

import pytest

from sentry.net.egress import keys
from sentry.net.egress.flows import Key
from sentry.net.ip import ipv4, ipv6
from tests.unit.net.egress.sandbox import ip

OURS, THEIRS = bytes((10, 88, 0, 2)), bytes((198, 51, 100, 1))
OURS6, THEIRS6 = ip("2001:db8::2"), ip("2001:db8:1::1")
PORTS = struct.pack(">HHHH", 40000, 443, 8, 0)
ECHO = bytes((8, 0, 0, 0, 0, 7, 0, 1))
REPLY = bytes((0, 0, 0, 0, 0, 7, 0, 1))


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_protocol_with_ports_has_them_in_its_key_whichever_way_it_goes(protocol: int) -> None:
    key = Key(protocol, ip("10.88.0.2"), 40000, ip("198.51.100.1"), 443)
    assert keys.key_of(protocol, OURS, THEIRS, PORTS) == key
    back = struct.pack(">HHHH", 443, 40000, 8, 0)
    assert keys.from_inside(protocol, OURS, THEIRS, back) == key
    assert keys.key_of(protocol, OURS, THEIRS, PORTS[:3]) is None


def test_echo_and_its_reply_are_of_one_flow() -> None:
    key = Key(1, ip("10.88.0.2"), 7, ip("198.51.100.1"), 0)
    assert keys.key_of(1, OURS, THEIRS, ECHO) == key
    assert keys.from_inside(1, OURS, THEIRS, REPLY) == key
    assert keys.from_inside(1, OURS, THEIRS, REPLY[:7]) is None
    timestamp = bytes((13, 0, 0, 0, 0, 7, 0, 1))
    assert keys.key_of(1, OURS, THEIRS, timestamp) == key._replace(source_port=0)


def test_other_protocols_have_no_ports() -> None:
    assert keys.key_of(47, OURS6, THEIRS6, b"") == Key(47, OURS6, 0, THEIRS6, 0)


def test_error_is_of_the_flow_of_what_it_quotes() -> None:
    head = ipv4.build(ipv4.Header(20, 28, 0, 0, 0, 64, 17, OURS, THEIRS))
    message = bytes((3, 3)) + bytes(6) + head + PORTS
    assert keys.is_error(1, message) and not keys.is_error(1, ECHO) and not keys.is_error(17, b"\3")
    assert keys.quoted(True, message) == keys.key_of(17, OURS, THEIRS, PORTS)
    assert keys.quoted(True, message[:20]) is None
    later = ipv4.build(ipv4.Header(20, 28, 0, 0, 5, 64, 17, OURS, THEIRS))
    assert keys.quoted(True, bytes(8) + later + PORTS) is None
    head6 = ipv6.build(ipv6.Header(0, 0, 8, 17, 64, OURS6, THEIRS6))
    message6 = bytes((1, 4)) + bytes(6) + head6 + PORTS
    assert keys.is_error(58, message6) and not keys.is_error(58, b"\x80")
    assert keys.quoted(False, message6) == keys.key_of(17, OURS6, THEIRS6, PORTS)
    assert keys.quoted(False, message6[:30]) is None
