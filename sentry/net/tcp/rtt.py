"""How long a round trip takes, and how long to wait for one: RFC 6298, tcp_rtt_estimator()."""

from __future__ import annotations

from collections import deque
from typing import Final

MS: Final = 1_000_000
INITIAL_NS: Final = 1_000_000_000
MIN_WINDOW_NS: Final = 300_000_000_000
"""How long the least round trip is remembered: net.ipv4.tcp_min_rtt_wlen."""


class RoundTrip:
    """Smoothed values, in nanoseconds; `rto_ns` is RFC 6298's, before any backing off."""

    __slots__ = (
        "_deviation", "_least", "_max_deviation", "_min_rto_ns", "_round_end", "rto_ns",
        "smoothed_ns", "variation_ns",
    )  # fmt: skip

    def __init__(self, min_rto_ns: int) -> None:
        self._min_rto_ns = min_rto_ns
        self.smoothed_ns = 0
        """0: nothing was measured."""
        self.variation_ns = 0
        self.rto_ns = INITIAL_NS
        self._deviation = self._max_deviation = 0
        self._round_end = 0
        self._least: deque[tuple[int, int]] = deque()
        """(when, round trip): of a window of time, each less than all behind it."""

    @property
    def deviation_ns(self) -> int:
        """How much they vary, without the least that the RTO has."""
        return self._deviation

    @property
    def least_ns(self) -> int:
        """The least of the last minutes; 0: nothing was measured."""
        return self._least[0][1] if self._least else 0

    def measured(self, now_ns: int, sample_ns: int, una: int, following: int) -> None:
        """One round trip; `una` and `following` (SND.NXT) tell where rounds end.

        The variation goes up at once and down once in a round, and is never less than the least
        RTO, as Linux has it.
        """
        sample_ns = max(sample_ns, 1000)
        self._remember(now_ns, sample_ns)
        if not self.smoothed_ns:
            self.smoothed_ns = sample_ns
            self._deviation = sample_ns // 2
            self.variation_ns = max(2 * sample_ns, self._min_rto_ns)
            self._max_deviation = self.variation_ns
            self._round_end = following
        else:
            error = sample_ns - self.smoothed_ns
            self.smoothed_ns = max(self.smoothed_ns + error // 8, 1000)
            change = abs(error) - self._deviation
            # a round trip that got shorter is no sign of much variation
            self._deviation += change // 32 if error < 0 < change else change // 4
            spread = 4 * self._deviation
            self._max_deviation = max(self._max_deviation, spread)
            self.variation_ns = max(self.variation_ns, self._max_deviation)
            if una > self._round_end:
                if self._max_deviation < self.variation_ns:
                    self.variation_ns -= (self.variation_ns - self._max_deviation) // 4
                self._round_end = following
                self._max_deviation = self._min_rto_ns
        self.rto_ns = self.smoothed_ns + self.variation_ns

    def _remember(self, now_ns: int, sample_ns: int) -> None:
        least = self._least
        while least and least[-1][1] >= sample_ns:
            least.pop()
        if len(least) < 3:
            least.append((now_ns, sample_ns))
        while least[0][0] < now_ns - MIN_WINDOW_NS and len(least) > 1:
            least.popleft()
