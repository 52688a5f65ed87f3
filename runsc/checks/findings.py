"""What was found, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Level = Literal["good", "note", "bad"]
MARKS: Final[dict[Level, str]] = {"good": "ok", "note": "note", "bad": "BAD"}
_MARK, _WIDTH = 5, 12


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


def table(findings: Sequence[Finding], columns: int = 0) -> str:
    """A mark, an area, and what was found; below it what to do. In so many columns; 0: any."""
    lines = []
    for finding in findings:
        first = f"{MARKS[finding.level]:{_MARK}}{finding.area:{_WIDTH}}"
        lines += _wrapped(first, finding.text, columns)
        if finding.advice:
            lines += _wrapped(" " * len(first), finding.advice, columns)
    return "\n".join(lines)


def _wrapped(first: str, text: str, columns: int) -> list[str]:
    if not columns:
        return [first + text]
    import textwrap  # noqa: PLC0415  only for a screen

    return textwrap.wrap(
        text, max(columns, 50), initial_indent=first, subsequent_indent=" " * len(first),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip


def verdict(findings: Sequence[Finding]) -> str:
    """All in one line."""
    problems = sum(each.level == "bad" for each in findings)
    notes = sum(each.level == "note" for each in findings)
    if problems:
        return f"Sandboxes do not run here: {_count(problems, 'problem')}, {_count(notes, 'note')}."
    return f"Sandboxes run here, with {_count(notes, 'note')}." if notes else "Sandboxes run here."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
