"""Who gets a datagram, among sockets that come, go and change."""

from __future__ import annotations

from typing import Any

from sentry.net.inet.address import ANY4, ANY6, MAPPED, Endpoint
from sentry.net.inet.receivers import Places
from sentry.net.interfaces import LOOPBACK_INDEX

HERE, FAR = MAPPED + b"\x7f\0\0\1", Endpoint(MAPPED + b"\x0a\0\0\1", 9)
SIX = bytes(15) + b"\1"
TO4, TO6 = Endpoint(HERE, 5), Endpoint(SIX, 5)


class Sock:
    """As much of a socket as is looked at."""


def sock(
    ip: bytes, *, remote: Endpoint | None = None, v6only: bool = False, device: int = 0
) -> Any:
    made: Any = Sock()
    made.device = device
    made.local, made.remote, made.v6only = Endpoint(ip, 5), remote, v6only
    return made


def group(places: Places, target: Endpoint, index: int = LOOPBACK_INDEX) -> list[Any]:
    found = places.group(target, index)
    return [] if found is None else list(found.socks)


def test_best_address_wins_and_families_share_a_port() -> None:
    places, four, six = Places(), sock(ANY4), sock(ANY6)
    only, exact = sock(ANY6, v6only=True), sock(HERE)
    for one in (six, only):
        places.changes(one)
    assert group(places, TO4) == [six]
    assert group(places, TO6) == [six, only]
    for one in (four, exact):
        places.changes(one)
    assert group(places, TO4) == [exact]
    places.gone(exact)
    assert group(places, TO4) == [four]
    assert group(places, Endpoint(HERE, 6)) == []


def test_socket_is_where_it_is_when_its_change_has_ended() -> None:
    places, one, other = Places(), sock(ANY4), sock(ANY4)
    places.changes(one)
    places.changes(other)
    places.changes(one)
    one.remote = FAR
    assert places.connected(TO4, FAR, LOOPBACK_INDEX) is one
    assert places.connected(TO4, TO4, LOOPBACK_INDEX) is None
    assert group(places, TO4) == [other]
    places.changes(one)
    one.remote, one.local = None, Endpoint(HERE, 5)
    assert group(places, TO4) == [one]
    places.changes(one)
    places.gone(one)
    assert places.connected(TO4, FAR, LOOPBACK_INDEX) is None
    assert group(places, TO4) == [other]


def test_order_is_that_of_coming() -> None:
    places, socks = Places(), [sock(HERE) for _ in range(3)]
    for one in socks:
        places.changes(one)
    found = places.group(TO4, LOOPBACK_INDEX)
    assert found is not None
    assert found.last is socks[2]
    assert [found.at(number) for number in range(4)] == [*socks, socks[0]]
    places.gone(socks[0])
    assert [found.at(number) for number in range(2)] == socks[1:]


def test_interface_counts_before_the_family_and_after_the_address() -> None:
    places, all_of_them, of_link = Places(), sock(ANY4), sock(ANY6, device=2)
    exact, other = sock(HERE), sock(ANY4, device=3)
    for one in (all_of_them, of_link, other):
        places.changes(one)
    assert group(places, TO4) == [all_of_them]
    assert group(places, TO4, 2) == [all_of_them]
    assert group(places, TO6, 2) == [of_link]
    assert group(places, TO6) == []
    assert group(places, TO4, 3) == [other]
    places.changes(exact)
    assert group(places, TO4, 3) == [exact]
