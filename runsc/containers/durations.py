"""Durations as Go writes them, which engines and gVisor's files have: 5s, 1m30s, 25us."""

from __future__ import annotations

import re

from runsc.errors import RuntimeFailure

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


MOST_S = float(1 << 63) / 1e9
"""As Go counts them."""


def seconds(text: str) -> float:
    """Of a text. Raises: RuntimeFailure."""
    parts = _PART.findall(text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not 0 < total < MOST_S:
        raise RuntimeFailure(f"{text!r} is no duration above 0, such as 500ms, 5s, 1m30s")
    return total
