"""Default routers, prefixes and addresses, as routers say, some of whom mean harm."""

from __future__ import annotations

import random

from sentry.abi.netlink import IFA_F_DEPRECATED, RTPROT_RA
from sentry.net.interfaces import masked
from sentry.net.ip import autoconf, ipv6
from sentry.net.ip.autoconf import Autoconf
from sentry.net.link import ndp
from tests.unit.net.ip.test_discovery import message
from tests.unit.net.wired import INDEX, SECOND_NS, Host, hardware, local6

HOUR_S = 3600
FOREVER = ndp.FOREVER_S
NETWORK = b"\x20\x01\x0d\xb8" + bytes(12)
OWN = NETWORK[:8] + bytes.fromhex("000000fffe000001")


class Guest(Host):
    """A host whose addresses and routes come from routers."""

    def __init__(self) -> None:
        super().__init__(1)
        self.changes = 0
        self.now_ns = SECOND_NS
        self.autoconf = Autoconf(self.layer, self.link, self.changed)
        self.layer.autoconf[INDEX] = self.autoconf
        self.layer.timed.append(self.autoconf)

    def changed(self) -> None:
        self.changes += 1

    def told(self, body: bytes, source: bytes = local6(2), hops: int = 255) -> None:
        """An advertisement comes."""
        frame = message(ndp.ROUTER_ADVERTISEMENT, body, source, ipv6.ALL_NODES, hops)
        self.hear(frame, self.now_ns)

    def passes(self, seconds: float) -> None:
        """Time, timer by timer."""
        until_ns = self.now_ns + int(seconds * SECOND_NS)
        while (due_ns := self.layer.timer()) is not None and due_ns <= until_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.layer.timeout(self.now_ns)
        self.now_ns = until_ns

    def own(self) -> list[bytes]:
        return [each.ip for each in self.autoconf.addresses()]

    def routers(self) -> list[bytes]:
        return [each.gateway for each in self.autoconf.routes() if each.gateway]

    def on_link(self) -> list[tuple[bytes, int]]:
        routes = self.autoconf.routes()
        return [(each.destination, each.length) for each in routes if not each.gateway]


def advertised(lifetime_s: int = 1800, *prefixes: bytes) -> bytes:
    """Behind type, code and checksum."""
    return b"\x40\0" + lifetime_s.to_bytes(2) + bytes(8) + b"".join(prefixes)


def prefix(
    network: bytes = NETWORK, length: int = 64, flags: int = 0xC0, valid_s: int = HOUR_S * 24,
    preferred_s: int = HOUR_S,
) -> bytes:  # fmt: skip
    times = valid_s.to_bytes(4) + preferred_s.to_bytes(4) + bytes(4)
    return bytes([ndp.PREFIX, 4, length, flags]) + times + network


def asked(guest: Guest) -> list[bytes]:
    """Questions for routers since the last time."""
    return [each for each in guest.frames() if each[54] == ndp.ROUTER_SOLICITATION]


def test_routers_are_asked_ever_less_often_until_one_answers() -> None:
    guest = Guest()
    guest.autoconf.begin(guest.now_ns)
    (frame,) = asked(guest)
    assert frame[:6] == bytes.fromhex("333300000002") and frame[21] == ndp.HOP_LIMIT
    assert frame[22:38] == local6(1) and frame[38:54] == ipv6.ALL_ROUTERS
    assert frame[62:] == bytes([ndp.SOURCE_HARDWARE, 1]) + hardware(1)
    counts = []
    for seconds in (4.5, 9, 18):
        guest.passes(seconds)
        counts.append(len(asked(guest)))
    assert counts == [1, 1, 1]
    guest.passes(24 * HOUR_S)
    assert 20 < len(asked(guest)) < 40
    guest.told(advertised(0))
    guest.passes(2 * HOUR_S)
    assert asked(guest)
    guest.told(advertised(65535))
    guest.passes(4 * HOUR_S)
    assert not asked(guest)


def test_router_prefix_and_address_come_and_go_with_their_times() -> None:
    guest = Guest()
    guest.told(advertised(1800, prefix()))
    (route,) = (each for each in guest.autoconf.routes() if each.gateway)
    assert (route.gateway, route.length, route.index) == (local6(2), 0, INDEX)
    assert (route.origin, route.metric) == (RTPROT_RA, 1024)
    assert guest.on_link() == [(NETWORK, 64)] and guest.own() == [OWN]
    assert guest.changes == 1
    guest.told(advertised(1800, prefix()))
    assert guest.changes == 1
    guest.passes(1801)
    assert not guest.routers() and guest.own() == [OWN]
    guest.passes(HOUR_S)
    assert guest.autoconf.addresses()[0].flags & IFA_F_DEPRECATED
    guest.told(advertised(1800, prefix()))
    assert not guest.autoconf.addresses()[0].flags & IFA_F_DEPRECATED
    assert guest.routers() == [local6(2)]
    guest.passes(25 * HOUR_S)
    assert not guest.own() and not guest.autoconf.routes()
    assert guest.autoconf.timer() is None


def test_lifetimes_without_an_end_have_no_timer() -> None:
    guest = Guest()
    guest.told(advertised(0, prefix(valid_s=FOREVER, preferred_s=FOREVER)))
    assert guest.own() == [OWN] and guest.autoconf.timer() is None


def test_router_that_is_none_any_more_goes_at_once() -> None:
    guest = Guest()
    guest.told(advertised(1800))
    guest.told(advertised(1800), local6(3))
    guest.told(advertised(0))
    assert guest.routers() == [local6(3)]
    guest.autoconf.end()
    assert not guest.routers() and guest.autoconf.timer() is None


def test_address_lives_two_hours_at_least_whoever_says_that_it_ends() -> None:
    guest = Guest()
    guest.told(advertised(0, prefix(valid_s=FOREVER, preferred_s=FOREVER)))
    guest.told(advertised(0, prefix(valid_s=1, preferred_s=0)))
    assert guest.autoconf.addresses()[0].flags & IFA_F_DEPRECATED
    guest.passes(2 * HOUR_S - 1)
    guest.told(advertised(0, prefix(valid_s=0, preferred_s=0)))
    assert guest.own() == [OWN]
    guest.passes(2)
    assert not guest.own()


def test_prefix_is_for_what_its_flags_say() -> None:
    guest = Guest()
    guest.told(advertised(0, prefix(flags=0x80)))
    assert guest.on_link() == [(NETWORK, 64)] and not guest.own()
    other = b"\xfd\x07" + bytes(14)
    guest.told(advertised(0, prefix(other, flags=0x40)))
    assert guest.on_link() == [(NETWORK, 64)]
    assert guest.own() == [other[:8] + OWN[8:]]
    guest.told(advertised(0, prefix(valid_s=0, preferred_s=0)))
    assert not guest.on_link()


def test_settings_say_what_of_it_is_heeded() -> None:
    guest = Guest()
    guest.sysctls["net/ipv6/conf/eth0/accept_ra_defrtr"] = "0"
    guest.sysctls["net/ipv6/conf/default/autoconf"] = "0"
    guest.told(advertised(1800, prefix()))
    assert (guest.routers(), guest.own(), guest.on_link()) == ([], [], [(NETWORK, 64)])
    guest.sysctls["net/ipv6/conf/eth0/accept_ra_pinfo"] = "0"
    guest.told(advertised(1800, prefix(b"\xfd" + bytes(15))))
    assert guest.on_link() == [(NETWORK, 64)]
    guest.sysctls["net/ipv6/conf/eth0/accept_ra"] = "0"
    guest.told(advertised(1800, prefix()))
    assert not guest.routers()


def test_what_is_no_advertisement_of_a_neighbour_changes_nothing() -> None:
    guest = Guest()
    whole = advertised(1800, prefix())
    guest.told(whole, hops=254)
    guest.told(whole, NETWORK[:15] + b"\x02")
    guest.told(whole[:-1])
    guest.told(whole + b"\x03\0")
    guest.told(whole[:11])
    guest.told(advertised(0, prefix(b"\xfe\x80" + bytes(14)), prefix(b"\xff\x0e" + bytes(14))))
    guest.told(advertised(0, prefix(length=129), prefix(flags=0x40, length=63)))
    guest.told(advertised(0, prefix(flags=0x40, valid_s=1, preferred_s=2)))
    guest.told(advertised(0, bytes([ndp.PREFIX, 3]) + bytes(22)))
    assert not guest.changes and not guest.autoconf.routes() and not guest.own()


def test_tables_of_a_link_have_ceilings_and_go_on_being_renewed() -> None:
    guest = Guest()
    for number in range(100):
        networks = [b"\xfd" + bytes([number, each]) + bytes(13) for each in range(40)]
        source = b"\xfe\x80" + bytes(13) + bytes([number + 2])
        guest.told(advertised(1800, *map(prefix, networks)), source)
    assert len(guest.routers()) == autoconf.MAX_ROUTERS
    assert len(guest.on_link()) == autoconf.MAX_PREFIXES
    assert len(guest.own()) == autoconf.MAX_OWN
    guest.told(advertised(9000))
    guest.passes(1801)
    assert guest.routers() == [local6(2)]


def test_random_advertisements_leave_what_is_well_formed() -> None:
    guest, chance = Guest(), random.Random(7)
    for _ in range(2000):
        options = [
            prefix(
                chance.choice((chance.randbytes(16), NETWORK)), chance.choice((0, 1, 64, 128, 255)),
                chance.randrange(256), chance.choice((0, 1, 7200, FOREVER)),
                chance.choice((0, 1, 7200, FOREVER)),
            )
            for _ in range(chance.randrange(5))
        ]  # fmt: skip
        body = advertised(chance.choice((0, 1, 65535)), *options, chance.randbytes(8))
        guest.told(body, b"\xfe\x80" + bytes(8) + chance.randbytes(6))
        guest.passes(chance.random() * 100)
        for each in guest.autoconf.routes():
            assert each.destination == masked(each.destination, each.length)
            assert each.index == INDEX
        assert all(ip[8:] == OWN[8:] for ip in guest.own())
        assert len(guest.routers()) <= autoconf.MAX_ROUTERS
