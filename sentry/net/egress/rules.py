"""A policy as a TOML document: what it may say, and what is wrong with one that says else."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Struct

MAX_BYTES: Final = 1 << 20
MAX_RULES: Final = 1024
MAX_BROKERS: Final = 64
"""Sockets of all rules."""
MAX_HOSTS: Final = 1024
"""Names, and addresses of all of them."""
MAX_PORT: Final = 65535
PROTOCOLS: Final = {"icmp": (1, 58), "tcp": (6,), "udp": (17,)}
_LABEL: Final = re.compile(r"[!-\-/-\[\]-~]{1,63}")
"""What `sentry.net.names` gives out: printable, neither dot nor backslash."""
MAX_NAME: Final = 253

Value = TypeVar("Value")


class PolicyError(Exception):
    """What is wrong with a policy, and where: "egress.toml: rule 2: ports: 70000 is no port"."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Ceilings; None is none."""

    bytes_out: int | None = None
    bytes_in: int | None = None
    connections: int | None = None
    """Flows that were allowed, as long as the sandbox lives."""
    open: int | None = None
    """Flows at a time."""
    rate_out: int | None = None
    """Bytes a second."""
    rate_in: int | None = None
    burst: int = 1 << 20
    """Bytes that may go at once after a pause."""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """All that is given has to fit; what is left out fits everything."""

    action: Literal["allow", "deny"]
    names: tuple[str, ...] | None = None
    """`example.org`, or `*.example.org` for all names below it; `*` for all."""
    cidrs: tuple[str, ...] | None = None
    ports: tuple[int | str, ...] | None = None
    """443, or "8000-8999"."""
    protocols: tuple[str | int, ...] | None = None
    """"tcp", "udp", "icmp" (of both families), or a number."""
    programs: tuple[str, ...] | None = None
    """Paths of executables."""
    uids: tuple[int, ...] | None = None
    broker: str | None = None
    """A Unix socket of the host, whose listener gets the connections of this rule. Packets to where
    it leads go nowhere."""
    limits: Limits = Limits()


class Dns(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asked for names, and what a program hears of one that it may not ask for."""

    refusal: Literal["NXDOMAIN", "REFUSED"] = "NXDOMAIN"
    servers: tuple[str, ...] | None = None
    """Addresses that are asked; those of resolv.conf otherwise, which the container's own files may
    name."""
    hosts: dict[str, tuple[str, ...]] = {}
    """Names whose addresses stand here, and nowhere else: nobody is asked for them."""


class Document(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy as it is written."""

    rule: tuple[Rule, ...] = ()
    default: Literal["allow", "deny"] = "deny"
    denial: Literal["ECONNREFUSED", "EPERM"] = "ECONNREFUSED"
    inbound: Literal["allow", "deny"] = "allow"
    """Whether flows that begin outside may come in, and be answered."""
    dns: Dns = Dns()
    limits: Limits = Limits()


def parse(text: str, file: str) -> Document:
    """A policy, checked. Raises PolicyError, which says where in `file` what is wrong."""
    if len(text) > MAX_BYTES:
        raise PolicyError(f"{file}: more than {MAX_BYTES} bytes")
    try:
        raw = tomllib.loads(text)
    except ValueError as error:  # also of an integer of thousands of digits
        raise PolicyError(f"{file}: {error}") from None
    except RecursionError:
        raise PolicyError(f"{file}: nested too deeply") from None
    rules = raw.pop("rule", [])
    if not isinstance(rules, list):
        raise PolicyError(f"{file}: rules are written as [[rule]]")
    if len(rules) > MAX_RULES:
        raise PolicyError(f"{file}: more than {MAX_RULES} rules")
    document = _converted(raw, Document, file)
    _check_limits(document.limits, file)
    for server in document.dns.servers or ():
        _check_address(server, f"{file}: dns: servers")
    _check_hosts(document.dns.hosts, f"{file}: dns: hosts")
    found = []
    for number, rule in enumerate(rules, 1):
        found.append(_converted(rule, Rule, f"{file}: rule {number}"))
        _check(found[-1], f"{file}: rule {number}")
    document = msgspec.structs.replace(document, rule=tuple(found))
    if len(brokers(document)) > MAX_BROKERS:
        raise PolicyError(f"{file}: more than {MAX_BROKERS} brokers")
    return document


def _converted(raw: object, kind: type[Value], where: str) -> Value:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        place = path.rstrip("`").lstrip("$.")
        raise PolicyError(f"{where}: {place}: {what}" if place else f"{where}: {what}") from None


def _check(rule: Rule, where: str) -> None:
    lists = ("names", "cidrs", "ports", "protocols", "programs", "uids")
    for field in lists:
        if getattr(rule, field) == ():
            raise PolicyError(f"{where}: {field}: an empty list fits nothing")
    for name in rule.names or ():
        if not is_pattern(name):
            raise PolicyError(f"{where}: names: {name!r} is no name, *.name or *")
    for cidr in rule.cidrs or ():
        network(cidr, where)
    for ports in rule.ports or ():
        port_range(ports, where)
    for protocol in rule.protocols or ():
        protocol_numbers(protocol, where)
    for program in rule.programs or ():
        if not program.startswith("/"):
            raise PolicyError(f"{where}: programs: {program!r} is no absolute path")
    for uid in rule.uids or ():
        if not 0 <= uid < 1 << 32:
            raise PolicyError(f"{where}: uids: {uid} is no user id")
    if rule.broker is not None:
        if rule.action != "allow" or rule.protocols not in (None, ("tcp",)):
            raise PolicyError(f'{where}: broker: only for what is allowed, and for "tcp" alone')
        if not rule.broker.startswith("/") or "\0" in rule.broker:
            raise PolicyError(f"{where}: broker: {rule.broker!r} is no absolute path")
    if rule.action == "deny" and rule.limits != Limits():
        raise PolicyError(f"{where}: limits: only for what is allowed")
    _check_limits(rule.limits, where)


def brokers(document: Document) -> tuple[str, ...]:
    """Their sockets, each once: by its place in this list a dialer knows it."""
    return tuple(dict.fromkeys(rule.broker for rule in document.rule if rule.broker is not None))


def _check_address(address: str, where: str) -> None:
    try:
        if "%" in address:
            raise ValueError(f"{address!r} has a zone")
        ipaddress.ip_address(address)
    except ValueError as error:
        raise PolicyError(f"{where}: {error}") from None


def _check_hosts(hosts: dict[str, tuple[str, ...]], where: str) -> None:
    if sum(1 + len(addresses) for addresses in hosts.values()) > MAX_HOSTS:
        raise PolicyError(f"{where}: more than {MAX_HOSTS} names and addresses")
    for name, addresses in hosts.items():
        if not is_pattern(name) or "*" in name:
            raise PolicyError(f"{where}: {name!r} is no name")
        for address in addresses:
            _check_address(address, where)


def _check_limits(limits: Limits, where: str) -> None:
    for field in ("bytes_out", "bytes_in", "connections", "open"):
        value = getattr(limits, field)
        if value is not None and value < 0:
            raise PolicyError(f"{where}: limits: {field} = {value} is below 0")
    for field in ("rate_out", "rate_in", "burst"):
        value = getattr(limits, field)
        if value is not None and value < 1:
            raise PolicyError(f"{where}: limits: {field} = {value} is below 1")


def is_pattern(name: str) -> bool:
    """Whether it can fit a name: ASCII and lower case are asked of names, `xn--` and all."""
    if name == "*":
        return True
    rest = name.removeprefix("*.")
    labels = rest.split(".")
    return (
        len(rest) <= MAX_NAME
        and rest == rest.lower()
        and "*" not in rest
        and all(_LABEL.fullmatch(label) for label in labels)
    )


def network(cidr: str, where: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A range, or an address by itself. PolicyError."""
    try:
        if "%" in cidr:
            raise ValueError(f"{cidr!r} has a zone")
        return ipaddress.ip_network(cidr)
    except ValueError as error:
        raise PolicyError(f"{where}: cidrs: {error}") from None


def port_range(ports: int | str, where: str) -> tuple[int, int]:
    """The first and the last one. PolicyError."""
    text = str(ports)
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", text, re.ASCII):
        raise PolicyError(f"{where}: ports: {ports!r} is no port, and no range as 8000-8999")
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= MAX_PORT:
        raise PolicyError(f"{where}: ports: {text} is no port or range of ports")
    return low, high


def protocol_numbers(protocol: str | int, where: str) -> tuple[int, ...]:
    """Numbers of IP protocols. PolicyError."""
    if isinstance(protocol, int) and 0 <= protocol <= 255:
        return (protocol,)
    if isinstance(protocol, str) and protocol in PROTOCOLS:
        return PROTOCOLS[protocol]
    known = ", ".join(PROTOCOLS)
    raise PolicyError(f"{where}: protocols: {protocol!r} is none of {known}, and no number")
