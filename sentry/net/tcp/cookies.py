"""SYN cookies: what is agreed with somebody of whom nothing is remembered. net/ipv4/syncookies.c.

The MSS goes into the sequence number of the answer, all else into the low bits of its timestamp.
"""

from __future__ import annotations

from typing import Final

from sentry.net.tcp.keyed import Flow, Keyed
from sentry.net.tcp.request import Agreed
from sentry.net.tcp.segment import MASK
from sentry.net.tcp.settings import MS, SECOND, Settings

SIZES: Final = (536, 1220, 1300, 1400, 1440, 1460, 4312, 8960)
MINUTE_NS: Final = 64 * SECOND
MOST_MINUTES: Final = 2
LOW: Final = 0xFFFFFF
NO_SCALE: Final = 15
HAS_SACK: Final = 1 << 4
HAS_ECN: Final = 1 << 5
BITS: Final = 6
OPTIONS: Final = (1 << BITS) - 1


def make(keyed: Keyed, now_ns: int, flow: Flow, irs: int, mss: int) -> int:
    """The sequence number of the answer to a SYN."""
    index = max((i for i, size in enumerate(SIZES) if size <= mss), default=0)
    minute = now_ns // MINUTE_NS + 1
    low = (keyed.cookie(flow, irs, minute) + index) & LOW
    return (keyed.cookie(flow, irs, 0) + (minute << 24) + low) & MASK


def check(keyed: Keyed, now_ns: int, flow: Flow, irs: int, cookie: int) -> int:
    """The MSS that one holds; 0: it is none of ours, or too old."""
    left = (cookie - keyed.cookie(flow, irs, 0)) & MASK
    minute = now_ns // MINUTE_NS + 1
    age = (minute - (left >> 24)) & 0xFF
    if age >= MOST_MINUTES:
        return 0
    index = (left - keyed.cookie(flow, irs, minute - age)) & LOW
    return SIZES[index] if index < len(SIZES) else 0


def offset_with(now_ns: int, offset: int, agreed: Agreed) -> int:
    """The offset with which the timestamp of the answer holds what was agreed, and is not late."""
    options = NO_SCALE if agreed.snd_scale is None else agreed.snd_scale
    options |= HAS_SACK * agreed.has_sack | HAS_ECN * agreed.has_ecn
    real = (now_ns // MS + offset) & MASK
    shown = (real & ~OPTIONS) | options
    if shown > real:
        shown -= OPTIONS + 1
    return (offset + shown - real) & MASK


def agreed_in(echo: int, settings: Settings, mss: int, stamp: int) -> Agreed | None:
    """What the echo of such a timestamp holds; None: it is nothing that we allow now."""
    scale: int | None = echo & NO_SCALE
    if scale == NO_SCALE:
        scale = None
    elif not settings.tcp_window_scaling:
        return None
    has_sack = bool(echo & HAS_SACK)
    if not settings.tcp_timestamps or (has_sack and not settings.tcp_sack):
        return None
    return Agreed(mss, scale, has_sack, stamp, bool(echo & HAS_ECN))
