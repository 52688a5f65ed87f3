"""Sets, intervals and maps, as packets find what is in them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import nftables as nft
from sentry.errors import EBUSY, EEXIST, ENFILE, ENOENT
from sentry.net.netfilter.ruleset import Table
from sentry.net.netfilter.sets import Element, Set

END = nft.NFT_SET_ELEM_INTERVAL_END


def run(now_ns: int = 0) -> Any:
    """A packet at a hook, as far as sets see it."""
    return SimpleNamespace(now_ns=now_ns, packet=SimpleNamespace(steps=0))


def group(flags: int = 0, *, size: int = 0, fields: tuple[int, ...] = ()) -> Set:
    """Of keys of 4 bytes."""
    made = Set(Table(nft.NFPROTO_INET, "t"), "s")
    made.flags, made.key_size, made.size, made.fields = flags, 4, size, list(fields)
    return made


def key(number: int) -> bytes:
    return number.to_bytes(4)


def test_key_is_found() -> None:
    made = group()
    made.add(Element(key(5)))
    assert made.find(run(), key(5)) is not None
    assert made.find(run(), key(6)) is None


def test_interval_holds_its_first_and_not_its_end() -> None:
    made = group(nft.NFT_SET_INTERVAL)
    for first, end in ((20, 30), (5, 10), (10, 12)):
        made.add(Element(key(end), END))
        made.add(Element(key(first)))
    found = {number for number in range(40) if made.find(run(), key(number)) is not None}
    assert found == {*range(5, 12), *range(20, 30)}
    made.remove(made.get(Element(key(5))))
    assert made.find(run(), key(6)) is None
    assert made.find(run(), key(10)) is not None


def test_interval_without_an_end_goes_on() -> None:
    made = group(nft.NFT_SET_INTERVAL)
    made.add(Element(key(5)))
    assert made.find(run(), b"\xff" * 4) is not None
    assert made.find(run(), key(4)) is None


def test_intervals_of_several_fields_hold_each_of_them() -> None:
    made = group(nft.NFT_SET_INTERVAL | nft.NFT_SET_CONCAT, fields=(4, 2))
    one = Element(key(1) + b"\0\x50\0\0")
    one.key_end = key(9) + b"\0\x5a\0\0"
    made.add(one)
    assert made.find(run(), key(9) + b"\0\x50\0\0") is one
    assert made.find(run(), key(9) + b"\0\x5b\0\0") is None
    assert made.find(run(), key(10) + b"\0\x50\0\0") is None


def test_element_whose_time_is_up_is_not_there() -> None:
    made = group(nft.NFT_SET_TIMEOUT, size=1)
    one = Element(key(1))
    one.expires_ns = 100
    made.add(one)
    assert made.find(run(99), key(1)) is one
    assert made.find(run(100), key(1)) is None
    assert not made.expired(99)
    assert made.expired(100) == [one]


def test_what_nothing_else_fits_is_caught() -> None:
    made = group()
    rest = Element(b"", nft.NFT_SET_ELEM_CATCHALL)
    made.add(rest)
    made.add(Element(key(1)))
    assert made.find(run(), key(2)) is rest
    assert len(list(made)) == len(made) == 2
    made.remove(rest)
    assert made.find(run(), key(2)) is None


def test_full_set_takes_no_more() -> None:
    made = group(size=1)
    made.add(Element(key(1)))
    with pytest.raises(ENFILE):
        made.add(Element(key(2)))


def test_key_that_is_there_is_not_new() -> None:
    made = group(nft.NFT_SET_MAP)
    one, other = Element(key(1)), Element(key(1))
    one.data, other.data = b"a", b"b"
    made.add(one)
    assert not made.check_new(one, exclusive=False)
    with pytest.raises(EEXIST):
        made.check_new(one, exclusive=True)
    with pytest.raises(EBUSY):
        made.check_new(other, exclusive=False)
    with pytest.raises(ENOENT):
        made.get(Element(key(2)))
