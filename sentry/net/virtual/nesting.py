"""What stands on what: VLANs on interfaces, bridges on their ports. netdev_upper_dev_link()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.errors import EBUSY, EMLINK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.net.made import Made

MAX_LEVELS: Final = 8
"""MAX_NEST_DEV: a frame goes through no more on its way."""
MAX_COPIES: Final = 1024
"""That a frame for all becomes in one step: a ceiling of ours. Bridges whose ports stand on bridges
multiply."""


def check_nesting(lower: Made, upper: Made | None) -> None:
    """One may stand on the other; None: on one that is new.

    Raises: EBUSY where it is the other way round already, EMLINK where it would be too high, or a
    frame too many.
    """
    below: dict[Made, int] = {}
    depth = _levels(lower, lambda made: made.below(), below)
    if upper is not None and upper in below:
        raise EBUSY("it stands on that")
    height = 1 if upper is None else _levels(upper, lambda made: made.above(), {})
    if depth + height > MAX_LEVELS:
        raise EMLINK("too many, one on the other")
    if upper is not None:
        copies: dict[Made, int] = {}
        copies[upper] = _copies(upper, copies) + _copies(lower, copies)
        if any(_copies(each, copies) > MAX_COPIES for each in _above(upper)):
            raise EMLINK("a frame would become too many")


def _levels(made: Made, step: Callable[[Made], Iterator[Made]], known: dict[Made, int]) -> int:
    """How many there are one on the other, from here on; each is looked at once."""
    found = known.get(made)
    if found is None:
        next_ones = (_levels(each, step, known) for each in step(made))
        found = known[made] = 1 + max(next_ones, default=0)
    return found


def _copies(made: Made, known: dict[Made, int]) -> int:
    """What becomes of a frame for all."""
    found = known.get(made)
    if found is None:
        found = known[made] = sum(_copies(each, known) for each in made.below()) or 1
    return found


def _above(made: Made) -> dict[Made, None]:
    """It, and all that stands on it."""
    found, left = {made: None}, [made]
    while left:
        for each in left.pop().above():
            if each not in found:
                found[each] = None
                left.append(each)
    return found
