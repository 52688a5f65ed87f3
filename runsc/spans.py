"""Spans of time and moments as people write them: "30 days", "1h30m", "2030-01-01 12:00"."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

NS = 10**9
_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": NS, "second": NS, "min": 60 * NS,
    "m": 60 * NS, "minute": 60 * NS, "h": 3600 * NS, "hour": 3600 * NS, "d": 86400 * NS,
    "day": 86400 * NS, "w": 604800 * NS, "week": 604800 * NS,
}  # fmt: skip
"""A year and a month are not of one length."""
_PART = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?\s*([a-zµ]+)[\s,]*")
MAX_NS = (1 << 62) - 1


def span_ns(span: str | float | timedelta) -> int:
    """Nanoseconds of a text, of seconds, or of a timedelta. Raises: ValueError."""
    if isinstance(span, timedelta):
        found = span // timedelta(microseconds=1) * 1000
    elif isinstance(span, str):
        found = _of_text(span.strip())
    else:
        try:
            found = int(span * NS)
        except OverflowError:
            found = -1
    if not 0 <= found <= MAX_NS:
        raise ValueError(f"{span!r} is no time that can go by")
    return found


def _of_text(text: str) -> int:
    total, at = 0, 0
    while match := _PART.match(text, at):
        whole, part, word = match.groups()
        unit = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
        if unit is None:
            break
        total += int(whole) * unit + int((part or "0").ljust(9, "0")) * unit // NS
        at = match.end()
    if not text or at != len(text):
        raise ValueError(f"{text!r} is no span of time such as 90s, 1h30m, 30 days")
    return total


def moment_ns(moment: str | float | datetime) -> int:
    """Nanoseconds since 1970 of an ISO 8601 text (UTC, if it says no zone), of seconds since then,
    or of a datetime. Raises: ValueError."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise ValueError(f"{moment!r} is no date such as 2030-01-01 12:00:00") from None
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        past = moment - datetime(1970, 1, 1, tzinfo=UTC)
        found = past // timedelta(microseconds=1) * 1000
    else:
        found = span_ns(moment)
    if not 0 <= found <= MAX_NS:
        raise ValueError("a wall clock shows 1970 to 2116")
    return found
