"""A log of what was denied: the last ones, and no more in a second than somebody may read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sentry.net.egress.limits import Bucket
from sentry.net.egress.policy import Program, Target

MAX_KEPT: Final = 1024
RATE: Final = 100
"""A second, and as many at once."""


class Denial(Struct, frozen=True):
    """Something that was not allowed: a flow, or the question for a name."""

    number: int
    """One more than that of the one before."""
    at_ns: int
    names: tuple[str, ...]
    """What the address was given for; for a question what was asked."""
    target: Target
    """Its `ip` is empty for a question."""
    program: Program | None
    rule: int
    reason: str


class Denials:
    """The log."""

    def __init__(self) -> None:
        self._kept: deque[Denial] = deque(maxlen=MAX_KEPT)
        self._bucket = Bucket(RATE, RATE)
        self.count = 0
        """All that were denied."""
        self.untold = 0
        """Of them those that came too fast to be written down."""
        self.number = 0
        self.on_add: Callable[[], object] = lambda: None
        """One was written down."""

    def add(self, denial: Denial) -> None:
        """Write it down, if there were not too many just now; `number` is given here."""
        self.count += 1
        if self._bucket.wait_ns(denial.at_ns):
            self.untold += 1
            return
        self._bucket.take(1, denial.at_ns)
        self.number += 1
        self._kept.append(replace(denial, number=self.number))
        self.on_add()

    def since(self, number: int) -> list[Denial]:
        """Those with higher numbers, as far as they are kept."""
        return [denial for denial in self._kept if denial.number > number]
