"""A policy that learns: it denies nothing, and tells who watches what programs do, once each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.policy.module import Module
from sentry.policy.rules import GIVES, OPENS, RUNS, SENDS, Rule
from sentry.syscalls.index import MODULES
from sentry.syscalls.registry import NUMBERS

if TYPE_CHECKING:
    from sentry.policy.engine import Engine
    from sentry.policy.event import Event

NAME: Final = "learn"
MAX_FACTS: Final = 1 << 17
"""What is new after so many is not told."""
MAX_SIZE: Final = 1 << 25
"""Nor is it if their paths have so many characters: programs choose them."""


def module(engine: Engine) -> Module:
    """Its rules: one for each kind."""
    seen: set[tuple[Any, ...]] = set()
    size = 0

    def saw(event: Event) -> None:
        nonlocal size
        if event.kind == "call":
            fact: tuple[Any, ...] = (event.call,)
        elif event.kind == "address":
            fact = event.kind, event.call == "bind", event.address, event.port, event.protocol
        else:
            fact = event.kind, event.path, event.writes, event.creates
        if fact not in seen and len(seen) < MAX_FACTS and size < MAX_SIZE:
            size += len(event.path) + len(event.unix)
            seen.add(fact)
            engine.learnt(event)

    of = {name: number for number, name in NUMBERS.items()}
    calls = {
        "call": [number for numbers in MODULES.values() for number in numbers],
        "open": [of[name] for name in (*OPENS, *GIVES)], "exec": [of[name] for name in RUNS],
        "address": [of[name] for name in (*SENDS, "bind")],
    }  # fmt: skip
    rules = [Rule(NAME, kind, frozenset(found), saw, False) for kind, found in calls.items()]
    return Module(NAME, "", rules, learns=True)
