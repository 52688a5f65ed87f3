"""What Sentry and dialer say to each other, and the line for a broker."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.net.host.dial import MAX_NAMES, MAX_REQUEST, MAX_TEXT, Wanted, line, pack, unpack

FOUR = bytes(10) + b"\xff\xff" + bytes((203, 0, 113, 5))
WHOLE = Wanted(3, FOUR, 443, ("api.org", "www.api.org"), "/usr/bin/curl", 7, 1000)


def test_request_is_read_as_it_was_written() -> None:
    assert unpack(pack(WHOLE)) == WHOLE
    assert unpack(pack(Wanted(0, bytes(16), 0))) == Wanted(0, bytes(16), 0)


def test_what_is_too_long_is_cut_and_fits_into_a_packet() -> None:
    names = tuple(f"{number}." + "x" * 250 for number in range(30))
    long = Wanted(0, FOUR, 1, names, "é" * 5000, -1, (1 << 32) - 1)
    found = unpack(pack(long))
    assert len(pack(long)) < MAX_REQUEST
    assert found.names == names[:MAX_NAMES] and found.program == "é" * (MAX_TEXT // 2)
    assert (found.pid, found.uid) == (-1, (1 << 32) - 1)


def test_request_that_is_cut_or_has_more_is_none() -> None:
    whole = pack(WHOLE)
    for size in range(len(whole)):
        with pytest.raises(ValueError, match="request"):
            unpack(whole[:size])
    with pytest.raises(ValueError, match="long"):
        unpack(whole + b"x")
    with pytest.raises(ValueError, match="names"):
        unpack(whole[:6] + b"\xff\xff" + whole[8:])


@given(st.binary(max_size=200) | st.binary(max_size=8).map(lambda data: data + pack(WHOLE)[8:]))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    with suppress(ValueError):
        said = line(unpack(data), "c")
        assert said.count(b"\n") == 1 and said.endswith(b"\n")
        assert json.loads(said)["container"] == "c"


def test_broker_hears_one_line_of_json() -> None:
    assert json.loads(line(WHOLE, "c1")) == {
        "container": "c1", "name": "api.org", "names": ["api.org", "www.api.org"],
        "address": "203.0.113.5", "port": 443, "program": "/usr/bin/curl", "pid": 7, "uid": 1000,
    }  # fmt: skip
    six = Wanted(0, socket.inet_pton(socket.AF_INET6, "2001:db8::5"), 80, (), 'a\n"b\udcff')
    with pytest.raises(UnicodeEncodeError):
        pack(six)  # a path of a program has none of those
    said = json.loads(line(Wanted(0, six.address, 80, (), 'a\n"b'), "c"))
    assert (said["name"], said["names"], said["address"]) == (None, [], "2001:db8::5")
    assert said["program"] == 'a\n"b'
