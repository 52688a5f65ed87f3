"""How often errors and better ways are told: icmpv4_xrlim_allow(), icmp_global_allow(),
net/ipv4/icmp.c; ip_rt_send_redirect(), net/ipv4/route.c."""

from __future__ import annotations

from typing import Final

SECOND_NS: Final = 1_000_000_000
PER_TARGET_MS: Final = {"net/ipv4/icmp_ratelimit": 1000, "net/ipv6/icmp/ratelimit": 100}
"""By default one error in this time to each address; 0: as many as there are."""
BURST_OF_TARGET: Final = 6
PER_SECOND: Final = 1000
"""icmp_msgs_per_sec, for all."""
BURST: Final = 50
"""icmp_msgs_burst."""
MAX_TARGETS: Final = 1024
"""A ceiling of ours: who got one longest ago is forgotten first."""
REDIRECT_NS: Final = SECOND_NS // 50
"""redirect_load: after the first redirect the next one may follow; each doubles it."""
REDIRECTS: Final = 9
"""redirect_number: who has not heeded so many hears no more."""
SILENCE_NS: Final = REDIRECT_NS << (REDIRECTS + 1)
"""redirect_silence, until whoever needed none is told again."""


class ErrorLimit:
    """Token buckets: one for all, one for each address."""

    def __init__(self, sysctls: dict[str, str], setting: str) -> None:
        """`sysctls`: as /proc/sys names them, read only; `setting`: one of
        PER_TARGET_MS."""
        self._sysctls = sysctls
        self._setting = setting
        self._stamp_ns = 0
        self._credit = 0
        self._targets: dict[bytes, tuple[int, int]] = {}
        """(when it was counted, ns that it has in its bucket)."""

    def _number(self, name: str, default: int) -> int:
        found = self._sysctls.get(name)
        return default if found is None else int(found)

    def allows(self, now_ns: int, target: bytes) -> bool:
        """One more may go there."""
        return self._all_allow(now_ns) and self._target_allows(now_ns, target)

    def _all_allow(self, now_ns: int) -> bool:
        burst = self._number("net/ipv4/icmp_msgs_burst", BURST)
        each_second = self._number("net/ipv4/icmp_msgs_per_sec", PER_SECOND)
        since_ns = now_ns - self._stamp_ns
        grown = since_ns * each_second // SECOND_NS if self._stamp_ns else burst
        if grown:
            self._credit = min(burst, self._credit + grown)
            self._stamp_ns = now_ns
        if self._credit <= 0:
            return False
        self._credit -= 1
        return True

    def _target_allows(self, now_ns: int, target: bytes) -> bool:
        each_ns = self._number(self._setting, PER_TARGET_MS[self._setting]) * (SECOND_NS // 1000)
        if not each_ns:
            return True
        most_ns = BURST_OF_TARGET * each_ns
        known = self._targets.pop(target, None)
        stamp_ns, saved_ns = (now_ns, most_ns) if known is None else known
        saved_ns = min(most_ns, saved_ns + now_ns - stamp_ns)
        is_allowed = saved_ns >= each_ns
        if len(self._targets) >= MAX_TARGETS:
            del self._targets[next(iter(self._targets))]
        self._targets[target] = now_ns, saved_ns - (each_ns if is_allowed else 0)
        return is_allowed


class RedirectLimit:
    """How often somebody is told of a better way."""

    def __init__(self) -> None:
        self._targets: dict[bytes, tuple[int, int]] = {}
        """(when it was last told, how often)."""

    def allows(self, now_ns: int, target: bytes) -> bool:
        """It may be told once more."""
        told_ns, number = self._targets.pop(target, (now_ns, 0))
        if now_ns > told_ns + SILENCE_NS:
            number = 0
        is_allowed = not number or (
            number < REDIRECTS and now_ns > told_ns + (REDIRECT_NS << number)
        )
        if is_allowed or number >= REDIRECTS:
            told_ns = now_ns
        if len(self._targets) >= MAX_TARGETS:
            del self._targets[next(iter(self._targets))]
        self._targets[target] = told_ns, number + is_allowed
        return is_allowed
