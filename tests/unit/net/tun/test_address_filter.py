"""TUNSETTXFILTER."""

from __future__ import annotations

from sentry.abi.tun import TUN_FLT_ALLMULTI
from sentry.net.tun.address_filter import EXACT, AddressFilter

GROUP = b"\x33\x33\0\0\0\1"


def host(number: int) -> bytes:
    return b"\x02" + bytes(4) + bytes([number])


def test_none_lets_everything_pass() -> None:
    empty = AddressFilter(0, [])
    assert empty.passes(host(1)) and empty.passes(GROUP) and empty.exact == 0


def test_only_those_that_are_named_pass() -> None:
    some = AddressFilter(0, [host(1), GROUP])
    assert some.exact == 2 and some.passes(host(1)) and some.passes(GROUP)
    assert not some.passes(host(2)) and not some.passes(b"\x33" + GROUP[:5])


def test_all_groups_pass_if_asked_for() -> None:
    some = AddressFilter(TUN_FLT_ALLMULTI, [host(1)])
    assert some.passes(GROUP) and not some.passes(host(2))


def test_behind_the_first_eight_there_may_be_groups_alone() -> None:
    many = [host(number) for number in range(EXACT)]
    assert AddressFilter(0, [*many, GROUP]).exact == EXACT
    assert AddressFilter(0, [*many, GROUP]).passes(GROUP)
    too_many = AddressFilter(0, [*many, host(99)])
    assert too_many.exact == 0 and too_many.passes(host(123))
