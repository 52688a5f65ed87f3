"""What a policy says of a flow or a name: rules as sets of bits, with no loop over them.

The lowest bit that is left of a set is the first rule that fits.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from operator import xor
from typing import Final

from msgspec import Struct

from sentry.net.egress.prefixes import Prefixes
from sentry.net.egress.ranges import Denied, forms
from sentry.net.egress.rules import (
    PROTOCOLS,
    Document,
    Rule,
    network,
    port_range,
    protocol_numbers,
)

DEFAULT: Final = 0
"""In place of a rule's number."""
BROKERED: Final = "only by its broker"
"""What no packet may go to."""


class Program(Struct, frozen=True):
    """Who sends: as far as rules ask."""

    pid: int
    uid: int
    path: str


class Target(Struct, frozen=True):
    """Where to."""

    protocol: int
    ip: bytes
    """16 bytes, an IPv4 address mapped."""
    port: int | None
    """None where the protocol has none."""


class Verdict(Struct, frozen=True):
    """What is decided, and by what."""

    allowed: bool
    rule: int
    """Its number, 1 for the first; DEFAULT."""
    reason: str
    errno: int = 0
    """What the program hears if it is denied."""
    broker: str | None = None
    """Who gets the connection, if it is allowed: it does not leave as packets."""


class _Any:
    """Rules by one of their fields: those that do not ask for it, and the others by value."""

    __slots__ = ("any", "by_value")

    def __init__(self) -> None:
        self.any = 0
        self.by_value: dict[object, int] = {}

    def add(self, values: Iterable[object] | None, bit: int) -> None:
        if values is None:
            self.any |= bit
            return
        for value in values:
            self.by_value[value] = self.by_value.get(value, 0) | bit

    def fit(self, value: object) -> int:
        return self.any | self.by_value.get(value, 0)


class Policy:
    """A document, made ready. `own` are the host's own addresses, as text."""

    def __init__(self, document: Document, own: Iterable[str] = ()) -> None:
        self.document = document
        self.errno: int = getattr(errno, document.denial)
        self._denied = Denied(own)
        self._allow = 0
        self._deny = 0
        self._absolute = 0
        """Rules that deny names whatever the address, the port and the protocol."""
        self._protocols, self._programs, self._uids = _Any(), _Any(), _Any()
        self._no_names = self._no_cidrs = self._no_ports = 0
        self._cidrs = Prefixes()
        self._exact: dict[str, int] = {}
        self._below: dict[str, int] = {}
        self._ports: dict[int, list[tuple[int, int]]] = {}
        for index, rule in enumerate(document.rule):
            self._add(rule, 1 << index)
        self._port_starts, self._port_bits = _cut(self._ports)

    def _add(self, rule: Rule, bit: int) -> None:
        if rule.action == "allow":
            self._allow |= bit
        else:
            self._deny |= bit
            if rule.ports is None and rule.protocols is None and rule.cidrs is None:
                self._absolute |= bit
        protocols = None
        if rule.protocols is not None and rule.broker is None:  # which denies all but TCP
            protocols = [n for item in rule.protocols for n in protocol_numbers(item, "")]
        self._protocols.add(protocols, bit)
        self._programs.add(rule.programs, bit)
        self._uids.add(rule.uids, bit)
        self._no_names |= bit * (rule.names is None)
        self._no_cidrs |= bit * (rule.cidrs is None)
        self._no_ports |= bit * (rule.ports is None)
        for cidr in rule.cidrs or ():
            self._cidrs.add(network(cidr, ""), bit)
        self._ports[bit] = [port_range(ports, "") for ports in rule.ports or ()]
        for name in rule.names or ():
            table = self._below if name.startswith("*") else self._exact
            key = name.removeprefix("*").removeprefix(".")
            table[key] = table.get(key, 0) | bit

    def rule(self, number: int) -> Rule | None:
        """The one of a verdict; None for DEFAULT."""
        return self.document.rule[number - 1] if number else None

    def judge(self, target: Target, program: Program | None, names: Iterable[str]) -> Verdict:
        """Whether a flow may leave. `names` are those that its address was given for."""
        fit = self._protocols.fit(target.protocol) & self._by_program(program)
        fit &= self._by_port(target.port)
        by_name = self._no_names
        for name in names:
            by_name |= self._by_name(name)
        covered, opened, reason = self._by_address(int.from_bytes(target.ip))
        fit &= by_name & covered & (self._deny | opened)
        if fit:
            verdict = self._verdict((fit & -fit).bit_length())
            if verdict.broker is None or target.protocol in PROTOCOLS["tcp"]:
                return verdict
            return Verdict(False, verdict.rule, BROKERED, self.errno)
        if reason:
            return Verdict(False, DEFAULT, reason, self.errno)
        return self._verdict(DEFAULT)

    def judge_name(self, name: str, program: Program | None) -> Verdict:
        """Whether a program may ask for a name: if there is anything that it may then do.

        That is, if the first rule that speaks of the name allows something, or denies not all. A
        rule of CIDRs without names says nothing of names.
        """
        fit = self._by_name(name) | self._no_names & self._no_cidrs
        fit &= self._by_program(program) & (self._allow | self._absolute)
        return self._verdict((fit & -fit).bit_length())

    def names_for(self, number: int, names: Iterable[str]) -> tuple[str, ...]:
        """Those of them that a rule fits; all, if it does not ask for names."""
        bit = 1 << (number - 1)
        if self._no_names & bit:
            return tuple(names)
        return tuple(name for name in names if self._by_name(name) & bit)

    def _verdict(self, number: int) -> Verdict:
        rule = self.rule(number)
        if (rule.action if rule else self.document.default) == "allow":
            return Verdict(True, number, "", broker=rule.broker if rule else None)
        return Verdict(False, number, "a rule" if rule else "the default", self.errno)

    def _by_program(self, program: Program | None) -> int:
        if program is None:
            return self._programs.any & self._uids.any
        return self._programs.fit(program.path) & self._uids.fit(program.uid)

    def _by_port(self, port: int | None) -> int:
        if port is None:
            return self._no_ports
        return self._no_ports | self._port_bits[bisect_right(self._port_starts, port) - 1]

    def _by_name(self, name: str) -> int:
        found = self._exact.get(name, 0) | self._below.get("", 0)
        while name:
            _, _, name = name.partition(".")
            found |= self._below.get(name, 0)
        return found

    def _by_address(self, address: int) -> tuple[int, int, str]:
        """Rules whose CIDRs have the address; rules that may allow it; why others may not.

        Where it is in a range that is denied, a rule may if one of its CIDRs lies in that range:
        0.0.0.0/0 names none. That holds for each address inside of the address.
        """
        covered, opened, why = self._no_cidrs, self._allow, ""
        for form in forms(address):
            needed, reason = self._denied.narrowest(form)
            opening = 0
            for length, bits in self._cidrs.around(form):
                covered |= bits
                if length >= needed:
                    opening |= bits
            if reason:
                opened, why = opened & opening, reason
        return covered, opened, why


def _cut(ports: dict[int, list[tuple[int, int]]]) -> tuple[list[int], list[int]]:
    """Ranges of rules as ranges side by side: where each begins, and the rules that have it."""
    changes = {0: 0}
    for bit, ranges in ports.items():
        end = 0
        for low, high in sorted(ranges):
            start = max(low, end)
            if start <= high:
                end = high + 1
                changes[start] = changes.get(start, 0) ^ bit
                changes[end] = changes.get(end, 0) ^ bit
    starts = sorted(changes)
    return starts, list(accumulate((changes[start] for start in starts), xor))
