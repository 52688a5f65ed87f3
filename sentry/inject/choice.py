"""Which of what fits a rule it is for."""

from __future__ import annotations

import re
from typing import Final

from sentry.faults import InjectRule

_MASK: Final = (1 << 64) - 1
MAX_WILDCARDS: Final = 2
"""In a pattern: how long a look takes grows with the length of a path to this power."""


class Choice:
    """A rule with its counts."""

    def __init__(self, rule: InjectRule) -> None:
        self.rule = rule
        self.fitted = 0
        self.injected = 0
        self.paths = patterns(rule.paths)
        self.programs = patterns(rule.programs)

    def takes(self) -> bool:
        """Something fits: whether the rule is for it."""
        rule = self.rule
        number = self.fitted
        self.fitted += 1
        if number < rule.after or (rule.count and self.injected >= rule.count):
            return False
        if rule.probability < 1.0 and chance(rule.seed, number) >= rule.probability:
            return False
        self.injected += 1
        return True


def chance(seed: int, number: int) -> float:
    """Between 0 and 1, the same for a seed and a number. SplitMix64 (Steele and others, 2014)."""
    mixed = (seed + 1) * 0x9E3779B97F4A7C15 + number * 0xD1342543DE82EF95 & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) / (1 << 64)


def patterns(texts: tuple[str, ...]) -> re.Pattern[bytes] | None:
    """Of paths; None: any. Raises: ValueError."""
    if not texts:
        return None
    return re.compile(b"(?:" + b"|".join(_pattern(text) for text in texts) + b")", re.S)


def _pattern(text: str) -> bytes:
    found = b""
    parts = re.split(r"(\*\*|\*|\?)", text)
    if sum(part in ("*", "**") for part in parts) > MAX_WILDCARDS:
        raise ValueError(f"{text!r} has more than {MAX_WILDCARDS} wildcards")
    for part in parts:
        special = {"**": b".*", "*": b"[^/]*", "?": b"[^/]"}.get(part)
        found += re.escape(part.encode("utf-8", "surrogateescape")) if special is None else special
    return found
