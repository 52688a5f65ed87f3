"""What was found, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Level = Literal["good", "note", "bad"]
MARKS: Final[dict[Level, str]] = {"good": "ok", "note": "note", "bad": "BAD"}
_WIDTH = 12


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing about this machine."""

    area: str
    level: Level
    text: str
    advice: str = ""
    """What to do about it."""


def good(area: str, text: str) -> Finding:
    """As it should be."""
    return Finding(area, "good", text)


def note(area: str, text: str, advice: str) -> Finding:
    """Sandboxes run without it."""
    return Finding(area, "note", text, advice)


def bad(area: str, text: str, advice: str) -> Finding:
    """They do not."""
    return Finding(area, "bad", text, advice)


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether sandboxes run here."""
    return all(finding.level != "bad" for finding in findings)


def table(findings: Sequence[Finding]) -> str:
    """A line each, and one below it with what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]:5}{finding.area:{_WIDTH}}{finding.text}")
        if finding.advice:
            lines.append(f"{'':{_WIDTH + 5}}{finding.advice}")
    return "\n".join(lines)
