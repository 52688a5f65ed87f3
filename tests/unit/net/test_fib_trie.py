"""sentry.net.fib_trie: the tree is what Linux 6.18 shows of the same routes."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from sentry.abi.netlink import (
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNREACHABLE,
)
from sentry.abi.socket import AF_INET
from sentry.net.fib_trie import fib_trie
from sentry.net.interfaces import Interfaces
from sentry.net.routes import Route
from sentry.net.rules import Rule, Rules

TREE = """\
  +-- 0.0.0.0/0 3 0 5
     +-- 10.5.0.0/24 2 0 1
        +-- 10.5.0.0/30 2 0 1
           |-- 10.5.0.0
              /25 host LOCAL
              /24 host LOCAL
           |-- 10.5.0.1
              /32 host LOCAL
           |-- 10.5.0.2
              /32 host LOCAL
        |-- 10.5.0.127
           /32 link BROADCAST
        |-- 10.5.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 192.168.0.0
        /16 universe UNREACHABLE
"""


def route(ip: str, length: int, *rest: int) -> Route:
    return Route(AF_INET, socket.inet_aton(ip), length, 1, *rest)


def routes() -> list[Route]:
    local = RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST
    last = RT_TABLE_LOCAL, RTN_BROADCAST, RT_SCOPE_LINK
    return [
        route("127.0.0.0", 8, *local), route("127.0.0.1", 32, *local),
        route("127.255.255.255", 32, *last), route("10.5.0.0", 24, *local),
        route("10.5.0.1", 32, *local), route("10.5.0.255", 32, *last),
        route("10.5.0.0", 25, *local), route("10.5.0.2", 32, *local),
        route("10.5.0.127", 32, *last), route("192.168.0.0", 16, RT_TABLE_MAIN, RTN_UNREACHABLE),
    ]  # fmt: skip


def shown(found: list[Route], rules: Rules) -> str:
    class Known(list[Route]):
        pass

    known: Any = Known(found)
    known.rules = rules
    stack: Any = SimpleNamespace(routes=known)
    return "".join(fib_trie(stack))


def test_the_tree_is_the_kernels() -> None:
    text = shown(routes(), Rules(Interfaces()))
    assert text == f"Main:\n{TREE}Local:\n{TREE}"


def test_with_a_rule_each_table_has_its_own() -> None:
    rules = Rules(Interfaces())
    rules.add(Rule(AF_INET, 100, 7))
    text = shown([*routes(), route("10.9.0.0", 16, 7)], rules)
    assert text.startswith("Id 7:\n  |-- 10.9.0.0\n     /16 universe UNICAST\nMain:\n  |-- 192.168")
    assert "Local:\n  +-- 0.0.0.0/1 2 0 2\n     +-- 10.5.0.0/24" in text


def test_without_routes_there_is_nothing() -> None:
    assert shown([], Rules(Interfaces())) == ""
