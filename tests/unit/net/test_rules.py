"""In which order tables are asked, and what rules ask of a packet."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP
from sentry.errors import EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENOBUFS, Errno
from sentry.net.interfaces import LOOPBACK_INDEX, Interface, Interfaces
from sentry.net.routes import Route, Routes
from sentry.net.rules import MAX_RULES, PLAIN, RouteKey, Rule, Rules
from tests.unit.net.wired import ip4, ip6

TARGET, SOURCE = ip4(9), ip4(2)
ETH0 = 7
MAIN, DEFAULT = abi.RT_TABLE_MAIN, abi.RT_TABLE_DEFAULT


def interfaces() -> Interfaces:
    made = Interfaces()
    made.insert(Interface(ETH0, "eth0"))
    return made


def route(table: int, length: int = 0, kind: int = abi.RTN_UNICAST) -> Route:
    return Route(AF_INET, bytes(4), length, ETH0, table, kind)


def rule(priority: int, table: int = 100, **more: Any) -> Rule:
    return Rule(AF_INET, priority, table, **more)


def asked(*rules: Rule, key: RouteKey = PLAIN, target: bytes = TARGET) -> list[int]:
    """The tables that are asked, in their order."""
    found: list[int] = []
    made = Rules(interfaces())

    def find(table: int) -> None:
        found.append(table)

    for each in rules:
        made.add(each)
    assert made.resolve(target, key, find) is ENETUNREACH
    return [table for table in found if table != abi.RT_TABLE_LOCAL]


def outcome(rules: list[Rule], *routes: Route) -> Route | type[Errno]:
    made = Rules(interfaces())
    for each in rules:
        made.add(each)
    of = {each.table: each for each in routes}
    return made.resolve(TARGET, PLAIN, of.get)


def test_main_comes_before_default_and_ipv6_has_no_default() -> None:
    assert asked() == [MAIN, DEFAULT]
    assert asked(target=ip6(9)) == [MAIN]
    assert Rules(interfaces()).are_first


def test_priority_decides_and_of_the_same_one_who_came_first() -> None:
    assert asked(rule(10, 101), rule(5, 102), rule(10, 103)) == [102, 101, 103, MAIN, DEFAULT]


@pytest.mark.parametrize(("more", "key", "matches"), [
    ({"source": ip4(0), "source_length": 24}, RouteKey(SOURCE), True),
    ({"source": ip4(1), "source_length": 24}, RouteKey(SOURCE), True),
    ({"source": ip4(0), "source_length": 24}, RouteKey(b"\x08" * 4), False),
    ({"source": ip4(0), "source_length": 24}, PLAIN, False),
    ({"destination": ip4(0), "length": 24}, PLAIN, True),
    ({"destination": b"\x08" * 4, "length": 8}, PLAIN, False),
    ({"mark": 5, "mask": 0xFFFFFFFF}, RouteKey(mark=5), True),
    ({"mark": 5, "mask": 0xFFFFFFFF}, RouteKey(mark=0x15), False),
    ({"mark": 5, "mask": 0xF}, RouteKey(mark=0x15), True),
    ({"mask": 0xF}, RouteKey(mark=1), False),
    ({"tos": 0x10}, RouteKey(tos=0x10), True),
    ({"tos": 0x10}, PLAIN, False),
    ({"iif": "lo"}, PLAIN, True),
    ({"iif": "lo"}, RouteKey(interface_in=ETH0), False),
    ({"iif": "eth0"}, RouteKey(interface_in=ETH0), True),
    ({"iif": "gone"}, RouteKey(interface_in=ETH0), False),
    ({"oif": "eth0"}, RouteKey(interface=ETH0), True),
    ({"oif": "eth0"}, PLAIN, False),
    ({"users": (5, 9)}, RouteKey(user=9), True),
    ({"users": (5, 9)}, RouteKey(user=10), False),
    ({"protocol": IPPROTO_TCP}, RouteKey(protocol=IPPROTO_TCP), True),
    ({"protocol": IPPROTO_TCP}, RouteKey(protocol=IPPROTO_UDP), False),
    ({"ports": (80, 90)}, RouteKey(port=85), True),
    ({"ports": (80, 90)}, RouteKey(source_port=85), False),
    ({"source_ports": (80, 80)}, RouteKey(source_port=80), True),
    ({"flags": abi.FIB_RULE_INVERT, "mark": 5, "mask": 5}, RouteKey(mark=5), False),
    ({"flags": abi.FIB_RULE_INVERT, "mark": 5, "mask": 5}, PLAIN, True),
])  # fmt: skip
def test_table_is_asked_if_the_rule_is_about_the_packet(
    more: dict[str, Any], key: RouteKey, matches: bool
) -> None:
    made = rule(10, **more)

    assert made.matches(TARGET, key, interfaces()) == matches
    assert (100 in asked(made, key=key)) == matches


def test_prefix_of_the_other_family_is_about_nothing() -> None:
    made = Rule(AF_INET6, 10, 100, source=ip6(0), source_length=64)
    assert not made.matches(ip6(9), RouteKey(SOURCE), interfaces())
    assert made.matches(ip6(9), RouteKey(ip6(2)), interfaces())


def test_goto_leaves_out_what_is_before_its_target() -> None:
    jump = rule(5, 0, action=abi.FR_ACT_GOTO, target=20)
    assert asked(jump, rule(10, 101), rule(20, 102)) == [102, MAIN, DEFAULT]
    assert asked(jump, rule(10, 101)) == [101, MAIN, DEFAULT]


def test_nop_does_nothing_and_the_rest_says_why_there_is_no_way() -> None:
    assert asked(rule(5, 0, action=abi.FR_ACT_NOP)) == [MAIN, DEFAULT]
    for action, error in (
        (abi.FR_ACT_BLACKHOLE, EINVAL), (abi.FR_ACT_UNREACHABLE, ENETUNREACH),
        (abi.FR_ACT_PROHIBIT, EACCES),
    ):  # fmt: skip
        assert outcome([rule(5, 0, action=action)], route(MAIN)) is error


def test_kinds_of_routes_say_why_there_is_no_way_and_throw_asks_on() -> None:
    for kind, error in (
        (abi.RTN_BLACKHOLE, EINVAL), (abi.RTN_UNREACHABLE, EHOSTUNREACH),
        (abi.RTN_PROHIBIT, EACCES),
    ):  # fmt: skip
        assert outcome([rule(5)], route(100, kind=kind), route(MAIN)) is error
    main = route(MAIN)
    assert outcome([rule(5)], route(100, kind=abi.RTN_THROW), main) == main


def test_route_with_too_short_a_prefix_does_not_count() -> None:
    suppressed, last = rule(5, MAIN, suppress=0), rule(6, 100)
    default, specific, other = route(MAIN), route(MAIN, 8), route(100)
    assert outcome([suppressed, last], default, other) == other
    assert outcome([suppressed, last], specific, other) == specific


def test_there_are_no_more_than_so_many() -> None:
    made = Rules(interfaces())
    for number in range(MAX_RULES - len(made.of(AF_INET))):
        made.add(rule(number))
    with pytest.raises(ENOBUFS):
        made.add(rule(1))
    made.add(Rule(AF_INET6, 1, 100))


def test_ports_are_left_out_where_no_rule_asks_for_them() -> None:
    made, key = Rules(interfaces()), RouteKey(SOURCE, protocol=6, source_port=1, port=2)
    assert made.narrowed(key) == RouteKey(SOURCE)
    made.add(rule(5, ports=(1, 2)))
    assert made.narrowed(key) == key
    made.remove(rule(5, ports=(1, 2)))
    assert made.narrowed(key) == RouteKey(SOURCE) and made.are_first


def test_list_of_routes_and_rules_give_the_same_as_the_table_for_packets() -> None:
    routes = Routes(interfaces())
    routes.added += [route(MAIN), route(100, 0), Route(AF_INET, ip4(0), 24, LOOPBACK_INDEX, 100)]
    assert routes.lookup(TARGET) == routes.added[0]
    routes.rules.add(rule(5, mark=1, mask=1))
    assert routes.lookup(TARGET, RouteKey(mark=1)) == routes.added[2]
    assert routes.lookup(TARGET, RouteKey(mark=1, interface=ETH0)) == routes.added[1]
    assert routes.lookup(b"\x7f\0\0\1", RouteKey(mark=1)) is not None
    routes.added = [route(MAIN, kind=abi.RTN_PROHIBIT)]
    assert routes.lookup(TARGET) is None and routes.find(TARGET) is EACCES
