"""Egress policies as sandboxes tell them, and with rules for what a program serves itself:
docs/egress.md, "Brokers"."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable
from typing import Any, Final

from runsc.api.errors import SandboxError
from runsc.containers.brokers import check_told
from runsc.errors import RuntimeFailure

ADDRESSES: Final = ipaddress.ip_network("192.0.2.0/24")
"""TEST-NET-1, RFC 5737: nobody's."""
FOLDER: Final = "runsc-{}"
"""Of the socket of such a broker, with 16 hexadecimal digits."""
_FOLDER: Final = re.compile(FOLDER.format("[0-9a-f]{16}"))
NOTHING: Final = 'default = "deny"\n'


def place_of(text: str) -> tuple[str, int]:
    """Of "name:port": the name, or address, and the port. Raises: ValueError."""
    name, colon, port = text.rpartition(":")
    name = name.strip("[]").rstrip(".").lower()
    if not colon or not name or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r} is no place such as api.internal:443")
    return name, int(port)


def told(policy: str, known: Collection[str]) -> str:
    """A policy as a sandbox tells it, with no broker but those that are known. Raises:
    SandboxError."""
    try:
        check_told(policy, known)
    except RuntimeFailure as error:
        raise SandboxError(str(error)) from None
    return policy


def served(policy: str, places: Iterable[tuple[str, int]], broker: str) -> str:
    """The policy with these places before all else. Raises: ValueError."""
    document: dict[str, Any] = tomllib.loads(policy)
    rules, names = [], []
    for name, port in places:
        rule: dict[str, Any] = {"action": "allow", "ports": [port], "broker": broker}
        if _is_address(name):
            rule["cidrs"] = [name]
        else:
            rule["names"] = [name]
            names.append(name)
        rules.append(rule)
    document["rule"] = [*rules, *document.get("rule", ())]
    hosts = document.setdefault("dns", {}).setdefault("hosts", {})
    free = (str(each) for each in ADDRESSES.hosts())
    taken = {address for given in hosts.values() for address in given}
    for name in dict.fromkeys(names):
        if name not in hosts:
            address = next((each for each in free if each not in taken), None)
            if address is None:
                raise ValueError("too many names are served")
            hosts[name] = [address]
    return _written(document)


def unserved(policy: str) -> str:
    """Where nobody serves these places: they are denied. Raises: PolicyError."""
    from sentry.net.egress.rules import parse  # noqa: PLC0415  few have one

    parse(policy, "egress")
    document = tomllib.loads(policy)
    changed = False
    for rule in document.get("rule", ()):
        if _FOLDER.fullmatch(os.path.basename(os.path.dirname(rule.get("broker", "")))):
            del rule["broker"]
            rule.pop("limits", None)
            rule["action"] = "deny"
            changed = True
    return _written(document) if changed else policy


def _written(document: dict[str, Any]) -> str:
    return "".join(f"{_value(key)} = {_value(each)}\n" for key, each in document.items())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _value(value: Any) -> str:
    """As TOML has it; a string also as a key."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
