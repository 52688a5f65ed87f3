"""/proc/net/fib_trie: routes of IPv4 as the tree that Linux keeps them in. net/ipv4/fib_trie.c.

Here there is no such tree: it is made of the routes that there are. Linux's remembers in which
order they came, and may have a wider node than this one where some have gone.
"""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi.socket import AF_INET
from sentry.net.rules import first_rules

if TYPE_CHECKING:
    from sentry.net.routes import Route
    from sentry.net.stack import Stack

NAMES: Final = {abi.RT_TABLE_LOCAL: "Local", abi.RT_TABLE_MAIN: "Main"}
KINDS: Final = {
    number: name.removeprefix("RTN_") for name, number in vars(abi).items()
    if name.startswith("RTN_") and name != "RTN_MAX"
}  # fmt: skip
SCOPES: Final = {
    abi.RT_SCOPE_UNIVERSE: "universe", abi.RT_SCOPE_SITE: "site", abi.RT_SCOPE_LINK: "link",
    abi.RT_SCOPE_HOST: "host", abi.RT_SCOPE_NOWHERE: "nowhere",
}  # fmt: skip
INFLATE, INFLATE_ROOT = 50, 30
"""How full a node has to be before it gets twice as many places, in per cent."""
Leaves = dict[int, list["Route"]]
"""By the address."""
Part = tuple[int, int]
"""Of the addresses in their order: the first, and what comes behind the last."""


def fib_trie(stack: Stack) -> Iterator[str]:
    """Each table with its tree; of local and main routes there is one, as long as nobody has made
    a rule: fib_unmerge()."""
    tables: dict[int, Leaves] = defaultdict(lambda: defaultdict(list))
    merged = set(NAMES) if stack.routes.rules.of(AF_INET) == first_rules(AF_INET) else set()
    for route in stack.routes:
        if route.family == AF_INET:
            for table in merged if route.table in merged else (route.table,):
                tables[table][int.from_bytes(route.destination)].append(route)
            yield ""
    for table in sorted(tables, key=lambda each: (each & 0xFF, each)):
        leaves = tables[table]
        yield f"{NAMES.get(table, f'Id {table}')}:\n"
        keys = sorted(leaves)
        yield from _node(keys, (0, len(keys)), leaves, 0, INFLATE_ROOT)


def _node(
    keys: list[int], part: Part, leaves: Leaves, level: int, threshold: int
) -> Iterator[str]:
    """What is below a place of the tree: fib_trie_seq_show()."""
    indent, (first, end) = "   " * level, part
    key = keys[first]
    if end - first == 1:
        yield f"{indent}  |-- {_shown(key)}\n"
        for route in sorted(leaves[key], key=lambda each: (-each.length, each.metric)):
            scope = SCOPES.get(route.scope, f"scope={route.scope}")
            yield f"{indent}     /{route.length} {scope} {KINDS[route.kind]}\n"
        return
    at = top = _first_difference(keys, part)
    children = [part]
    while True:
        children = [half for each in children for half in _halves(keys, each, at)]
        full = sum(_first_difference(keys, each) == at - 1 >= 0 for each in children)
        places = 1 << top - at + 1
        if not at or 50 * (len(children) + full) < threshold * places:
            break
        at -= 1
        yield ""
    bits, prefix = top - at + 1, 31 - top
    yield (
        f"{indent}  +-- {_shown(key >> top + 1 << top + 1)}/{prefix} {bits} {full} "
        f"{places - len(children)}\n"
    )
    for each in children:
        yield from _node(keys, each, leaves, level + 1, INFLATE)


def _halves(keys: list[int], part: Part, at: int) -> Iterator[Part]:
    """Those without and those with this bit, above which all are the same; if there are some."""
    first, end = part
    middle = bisect_left(keys, (keys[first] >> at | 1) << at, first, end)
    if first < middle:
        yield first, middle
    if middle < end:
        yield middle, end


def _first_difference(keys: list[int], part: Part) -> int:
    """The highest bit in which they are not the same; -1: there is one only."""
    return (keys[part[0]] ^ keys[part[1] - 1]).bit_length() - 1


def _shown(key: int) -> str:
    return socket.inet_ntoa(key.to_bytes(4))
