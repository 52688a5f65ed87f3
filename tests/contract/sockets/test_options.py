"""Every row of every family's socket options: legal values, wrong ones, lengths; as Linux does."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.abi import socket as abi
from sentry.abi.socket import AF_INET6, IPPROTO_IPV6, SOL_SOCKET
from sentry.errors import EBADF, EINVAL, ENOPROTOOPT, EOPNOTSUPP
from sentry.net.options import Option, Within, flag
from tests.contract.sockets.calls import Sockets
from tests.contract.sockets.conftest import Family

NO_OPTION = 9999


def rows_of(family: Family) -> Iterator[Option]:
    """The rows that a socket of the family has."""
    for row in family.options.everything().values():
        if row.level != IPPROTO_IPV6 or family.domain == AF_INET6:
            yield row


def test_show(linux: Sockets, sentry: Sockets, family: Family) -> None:
    out = []
    for row in rows_of(family):
        answers = []
        for sockets in (linux, sentry):
            mine = []
            for size in (0, 1, 3, 4, 8, 64):
                fd = family.new(sockets)
                mine.append(("get", size, sockets.get(fd, row.level, row.number, size)))
                sockets.call("close", fd)
            for size in (0, 1, 3, 4, 8, 64):
                fd = family.new(sockets)
                for byte in (0, 1, 7, 255):
                    value = bytes([byte]) + bytes([255 if byte == 255 else 0]) * 63
                    mine.append(("set", size, byte, sockets.set(fd, row.level, row.number, value[:size])))
                    got = sockets.get(fd, row.level, row.number, 64)
                    mine.append(("then", size, byte, got))
                sockets.call("close", fd)
            answers.append(mine)
        bad = [(a, b) for a, b in zip(*answers, strict=True) if a != b]
        if bad:
            out.append((row.name, row.partial, len(bad), bad[:3]))
    for line in out:
        print(*line)
    assert not out
