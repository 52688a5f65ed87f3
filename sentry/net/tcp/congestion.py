"""How much may be under way: RFC 5681 (Reno), RFC 9438 (CUBIC), RFC 9406 (HyStart++). In bytes."""

from __future__ import annotations

from typing import ClassVar, Final

INITIAL_PACKETS: Final = 10
"""RFC 6928."""
INFINITE: Final = 0x7FFFFFFF
LEAST_PACKETS: Final = 2
SECOND: Final = 1_000_000_000
MS: Final = 1_000_000


class Reno:
    """The window of one connection; the base of others."""

    __slots__ = ("_counted", "limit", "mss", "threshold", "window")

    name: ClassVar = "reno"

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.window = INITIAL_PACKETS * mss
        self.threshold = INFINITE * mss
        self.limit = 0
        """The window never gets larger; 0: no limit."""
        self._counted = 0

    @property
    def in_slow_start(self) -> bool:
        """The window doubles in each round trip."""
        return self.window < self.threshold

    def set_mss(self, mss: int) -> None:
        """The path is another one: the window stays as many packets as it was."""
        self.window = max(self.window // self.mss, 1) * mss
        if self.threshold < INFINITE * self.mss:
            self.threshold = max(self.threshold // self.mss, LEAST_PACKETS) * mss
        else:
            self.threshold = INFINITE * mss
        self.mss = mss

    def acknowledged(self, now_ns: int, size: int, rtt_ns: int) -> None:
        """So many bytes, while nothing was lost and the window was in use."""
        if self.in_slow_start:
            size = self._slow_start(size)
        if size:
            self._avoid(now_ns, size, rtt_ns)
        if self.limit:
            self.window = min(self.window, self.limit)

    def _slow_start(self, size: int) -> int:
        """As many bytes more as were acknowledged; what is left behind the threshold."""
        grown = min(self.window + size, max(self.threshold, self.window))
        left = size - (grown - self.window)
        self.window = grown
        return left

    def _avoid(self, now_ns: int, size: int, rtt_ns: int) -> None:
        self._grow_by(size, self.window)

    def _grow_by(self, size: int, each: float) -> None:
        """One packet more for `each` bytes that are acknowledged."""
        self._counted += size
        if self._counted >= each:
            packets = int(self._counted // max(each, 1))
            self._counted -= int(packets * each)
            self.window += packets * self.mss

    def reduced(self) -> int:
        """The threshold after a loss."""
        return max(self.window // 2, LEAST_PACKETS * self.mss)

    def lost(self) -> None:
        """A time-out: what was learned of the path is worth nothing."""
        self._counted = 0

    def measured(self, acknowledged: int, following: int, rtt_ns: int) -> None:
        """A round trip was measured."""

    def idle(self, idle_ns: int, rto_ns: int) -> None:
        """Nothing was under way for so long: RFC 2861, tcp_cwnd_restart(). RTO 0: no matter."""
        if not rto_ns or idle_ns <= rto_ns:
            return
        if not self.in_slow_start:
            self.threshold = max(self.threshold, self.window * 3 // 4)
        least = min(self.window, INITIAL_PACKETS * self.mss)
        self.window = max(self.window >> min(idle_ns // rto_ns, 64), least)


class Cubic(Reno):
    """RFC 9438, with HyStart++ to leave slow start before something is lost."""

    __slots__ = (
        "_epoch_ns",
        "_estimate",
        "_k",
        "_origin",
        "_round_end",
        "_round_min_ns",
        "_round_samples",
        "_slow",
        "_slow_rounds",
        "_slow_since_ns",
        "_w_max",
        "_was_min_ns",
    )  # fmt: skip

    name: ClassVar = "cubic"
    BETA: Final = 0.7
    C: Final = 0.4
    SAMPLES: Final = 8
    SLOW_ROUNDS: Final = 5
    GROWTH_DIVISOR: Final = 4
    LEAST_THRESHOLD_NS: Final = 4 * MS
    MOST_THRESHOLD_NS: Final = 16 * MS

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self._w_max = 0.0
        self._epoch_ns = 0
        self._k = self._origin = self._estimate = 0.0
        self._round_end = -1
        self._round_min_ns = self._was_min_ns = 0
        self._round_samples = 0
        self._slow = False
        """Conservative slow start: the round trip got longer."""
        self._slow_rounds = 0
        self._slow_since_ns = 0

    def _slow_start(self, size: int) -> int:
        if self._slow:
            super()._slow_start(size // self.GROWTH_DIVISOR)
            return 0
        return super()._slow_start(size)

    def _avoid(self, now_ns: int, size: int, rtt_ns: int) -> None:
        """RFC 9438, 4.2 to 4.5, in packets of one MSS."""
        window = self.window / self.mss
        if not self._epoch_ns:
            self._epoch_ns = now_ns
            self._counted = 0
            self._estimate = window
            if window < self._w_max:
                self._k = ((self._w_max - window) / self.C) ** (1 / 3)
                self._origin = self._w_max
            else:
                self._k, self._origin = 0.0, window
        elapsed = (now_ns - self._epoch_ns + rtt_ns) / SECOND
        target = self._origin + self.C * (elapsed - self._k) ** 3
        target = min(max(target, window), 1.5 * window)
        alpha = 3 * (1 - self.BETA) / (1 + self.BETA) if self._estimate < self._w_max else 1.0
        self._estimate += alpha * (size / self.mss) / window
        target = max(target, self._estimate)
        if target > window:
            self._grow_by(size, self.window / (target - window))
        else:
            self._grow_by(size, 100 * self.window)

    def reduced(self) -> int:
        """Seven tenths; where the window had not reached its last height, that is less (4.7)."""
        window = self.window / self.mss
        self._epoch_ns = 0
        self._w_max = window * (1 + self.BETA) / 2 if window < self._w_max else window
        self._slow = False
        return max(int(self.window * self.BETA), LEAST_PACKETS * self.mss)

    def lost(self) -> None:
        super().lost()
        self._epoch_ns = 0
        self._round_end = -1
        self._slow = False

    def idle(self, idle_ns: int, rto_ns: int) -> None:
        super().idle(idle_ns, rto_ns)
        if self._epoch_ns:
            self._epoch_ns += idle_ns  # the curve is of time in which something was sent

    def measured(self, acknowledged: int, following: int, rtt_ns: int) -> None:
        """RFC 9406, 4.2: rounds, and the least round trip of each."""
        if not self.in_slow_start:
            return
        if acknowledged > self._round_end:
            if self._slow:
                self._slow_rounds += 1
                if self._slow_rounds >= self.SLOW_ROUNDS:
                    self.threshold, self._slow = self.window, False
                    return
            self._round_end = following
            self._was_min_ns, self._round_min_ns, self._round_samples = self._round_min_ns, 0, 0
        self._round_min_ns = min(self._round_min_ns, rtt_ns) if self._round_samples else rtt_ns
        self._round_samples += 1
        if self._round_samples < self.SAMPLES or not self._was_min_ns:
            return
        if self._slow:
            if self._round_min_ns < self._slow_since_ns:
                self._slow = False
            return
        margin = max(self.LEAST_THRESHOLD_NS, min(self._was_min_ns // 8, self.MOST_THRESHOLD_NS))
        if self._round_min_ns >= self._was_min_ns + margin:
            self._slow, self._slow_rounds = True, 0
            self._slow_since_ns = self._round_min_ns


KINDS: Final = {kind.name: kind for kind in (Cubic, Reno)}
