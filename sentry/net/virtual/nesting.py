"""What stands on what: VLANs on interfaces, bridges on their ports. netdev_upper_dev_link()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.errors import EBUSY, EMLINK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.net.made import Made

MAX_LEVELS: Final = 8
"""MAX_NEST_DEV: a frame goes through no more on its way."""


def check_nesting(lower: Made, upper: Made | None) -> None:
    """One may stand on the other; None: on one that is new.

    Raises: EBUSY where it is the other way round already, EMLINK where it would be too high.
    """
    below: dict[Made, int] = {}
    depth = _levels(lower, lambda made: made.below(), below)
    if upper is not None and upper in below:
        raise EBUSY("it stands on that")
    height = 1 if upper is None else _levels(upper, lambda made: made.above(), {})
    if depth + height > MAX_LEVELS:
        raise EMLINK("too many, one on the other")


def _levels(made: Made, step: Callable[[Made], Iterator[Made]], known: dict[Made, int]) -> int:
    """How many there are one on the other, from here on; each is looked at once."""
    found = known.get(made)
    if found is None:
        next_ones = (_levels(each, step, known) for each in step(made))
        found = known[made] = 1 + max(next_ones, default=0)
    return found
