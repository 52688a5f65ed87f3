"""Rules of socket options."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import socket as abi
from sentry.errors import EINVAL
from sentry.net.host.options import READABLE, SETTABLE
from sentry.net.host.rows import HOST
from sentry.net.inet.ip_options import empty_is_0, int_value
from sentry.net.inet.tcp_options import TCP
from sentry.net.options import Options, Within, anything, exact, flag, whole
from sentry.net.packet_options import LAST_VERSION, PACKET
from sentry.net.socket_options import format_timeout, parse_timeout


def test_within_lets_its_bounds_pass_and_has_a_default() -> None:
    rule = Within(1, 255, 64)
    assert [rule(number) for number in (1, 255, -1)] == [1, 255, 64]
    for number in (0, 256, -2):
        with pytest.raises(EINVAL):
            rule(number)
    with pytest.raises(EINVAL):
        Within(0, 1)(-1)


def test_lengths_are_those_of_the_rule() -> None:
    assert whole(b"\x01\0\0\0rest") == exact(b"\x01\0\0\0") == int_value(b"\x01") == 1
    assert empty_is_0(b"") == 0
    for parse, value in ((whole, b"abc"), (exact, bytes(5)), (int_value, b"")):
        with pytest.raises(EINVAL):
            parse(value)


def test_a_row_knows_its_number_and_its_rules() -> None:
    rows = Options(abi.SOL_SOCKET, abi)
    row = rows.row("SO_DEBUG", check=flag)
    assert rows.find((abi.SOL_SOCKET, abi.SO_DEBUG)) is row
    assert row.number_in(b"\x07\0\0\0") == 1
    assert rows.row("SO_MARK").check is anything


def test_streams_have_rules_of_their_own() -> None:
    row = TCP.find((abi.IPPROTO_IP, abi.IP_TOS))
    assert row is not None
    assert row.number_in(b"\xff") == 0xFC


def test_of_the_hosts_options_those_of_the_list_pass() -> None:
    assert set(HOST) >= READABLE
    settable = {key for key, row in HOST.items() if row.setter is not None}
    timeouts = {(1, n) for n in (20, 21, 66, 67)}
    assert settable == SETTABLE | timeouts


@pytest.mark.parametrize("timeout_ns", [None, 1000, 1_500_000_000])
def test_timeouts_come_back(timeout_ns: int | None) -> None:
    assert parse_timeout(format_timeout(timeout_ns)) == timeout_ns


@pytest.mark.parametrize("version", range(LAST_VERSION + 1))
def test_packets_are_counted_in_32_bits(version: int) -> None:
    sock: Any = SimpleNamespace(
        counts=[(1 << 32) + 7, 1 << 32], values={abi.PACKET_VERSION: version},
        take_freezes=lambda: (1 << 32) + 3,
    )  # fmt: skip
    row = PACKET.find((abi.SOL_PACKET, abi.PACKET_STATISTICS))
    assert row is not None and row.getter is not None
    told: Any = row.getter(row, sock, SimpleNamespace(), 12)
    assert told == struct.pack("<III", 7, 0, 3)[: 12 if version == LAST_VERSION else 8]
    assert sock.counts == [0, 0]
