"""Rules as TOML: Python is made of them, which says the same.

    [[rule]]
    on = "open"                  # open, execve, connect, bind, or the names of system calls
    path = "/etc/**"
    writes = true                # only if it writes
    verdict = "deny EACCES"

A rule may have the filters that `@on` has for what it is about. They are asked in their order;
`default = "deny"` (or, for kinds alone, `[default]` with `open = "deny"`) is for what no rule is
for.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

import msgspec

from sentry.policy.rules import On
from sentry.policy.verdicts import Allow, Change, Deny, Kill, Result, Verdict, parsed

KINDS: Final = ("open", "execve", "connect", "bind")
MAX_RULES: Final = 1000
Texts = str | list[str]


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    on: Texts
    verdict: str
    path: Texts | None = None
    program: Texts | None = None
    hash: Texts | None = None
    address: Texts | None = None
    port: int | str | list[int | str] | None = None
    protocol: Texts | None = None
    writes: bool | None = None
    creates: bool | None = None
    text: str | None = None
    """ask: what is asked."""
    deadline: float = 60
    otherwise: str = "deny"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    rule: list[_Rule] = []
    default: dict[str, str] = {}
    allowed_calls: list[str] = []
    """If there are some: all other calls are denied."""


def source(text: str) -> str:
    """Python for a document. Raises: ValueError, with what is wrong."""
    try:
        found = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None
    if len(found.rule) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES} rules")
    parts = ["from runsc.policy import *"]
    for number, rule in enumerate(found.rule, 1):
        try:
            parts.append(_made(rule, f"rule_{number}"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"rule {number}: {error}") from None
    for kind, verdict in found.default.items():
        if kind not in KINDS:
            raise ValueError(f"default: {kind!r} is none of {', '.join(KINDS)}")
        made = _Rule(kind, verdict)
        parts.append(_made(made, f"default_{kind}"))
    if found.allowed_calls:
        parts.append(_calls(found.allowed_calls))
    return "\n\n".join(parts) + "\n"


def _made(rule: _Rule, name: str) -> str:
    calls = [rule.on] if isinstance(rule.on, str) else rule.on
    filters = {
        key: value
        for key in ("path", "program", "hash", "address", "port", "protocol")
        if (value := getattr(rule, key)) is not None
    }
    on = On()  # what is wrong with it is found out here
    lines = []
    for call in calls:
        registered = getattr(on, call)(**filters) if call in KINDS else on(call, **filters)
        registered(_made)
        head = f"on.{call}(" if call in KINDS else f"on({call!r}, "
        given = ", ".join(f"{key}={value!r}" for key, value in filters.items())
        lines.append(f"@{head}{given})".replace(", )", ")"))
    for key in ("writes", "creates"):
        if getattr(rule, key) is not None and not {rule_kind(each) for each in on.rules} & {
            "open", "path"
        }:
            raise ValueError(f"{key} is of files")
    tests = [
        f"event.{key} is {getattr(rule, key)}"
        for key in ("writes", "creates")
        if getattr(rule, key) is not None
    ]
    if rule.verdict == "ask":
        if not 0 < rule.deadline <= 7 * 86400:
            raise ValueError("a deadline is up to a week of seconds")
        otherwise = _expression(parsed(rule.otherwise))
        asked = repr(rule.text) if rule.text is not None else "str(event)"
        body = f"return await ask({asked}, deadline={rule.deadline!r}, otherwise={otherwise})"
        lines.append(f"async def {name}(event):")
    else:
        body = f"return {_expression(parsed(rule.verdict))}"
        lines.append(f"def {name}(event):")
    if tests:
        lines.append(f"    if {' and '.join(tests)}:")
        body = f"    {body}"
    return "\n".join([*lines, f"    {body}"])


def rule_kind(rule: Any) -> str:
    """What it is about."""
    return str(rule.kind)


def _expression(verdict: Verdict) -> str:
    if isinstance(verdict, Allow):
        return "ALLOW"
    if isinstance(verdict, Kill):
        return "KILL"
    if isinstance(verdict, Deny):
        return f"DENY({verdict.errno})"
    assert isinstance(verdict, Result) and not isinstance(verdict, Change)
    return f"RESULT({verdict.value})"


def _calls(allowed: list[str]) -> str:
    names = ", ".join(map(repr, sorted(set(allowed))))
    On().other_calls(*allowed)
    return f"@on.other_calls({names})\ndef other_calls(event):\n    return DENY"
