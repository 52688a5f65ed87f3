"""What a sandbox's owner has decided about it."""

from __future__ import annotations

from sentry.control.decisions import of
from sentry.control.orders import Decided
from tests.world import World


def test_who_asks_for_it_makes_no_network() -> None:
    """A fork that is asked would have it in memory."""
    with World() as world:
        assert of(world.kernel) == Decided()
        assert world.kernel.first.net.is_untouched
