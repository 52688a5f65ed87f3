"""A world for tests of poll(2) and select(2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sentry.syscalls.files import poll_set
from sentry.wait import steps
from tests.world import World


@pytest.fixture(params=["at once", "in steps"])
def looking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Also where a look takes many steps, between which others run."""
    if request.param == "in steps":
        monkeypatch.setattr(steps, "STEP_NS", -1)
        monkeypatch.setattr(poll_set, "AT_A_TIME", 8)
        monkeypatch.setattr("sentry.syscalls.files.poll.AT_A_TIME", 8)
        monkeypatch.setattr("sentry.syscalls.files.select.AT_A_TIME", 8)
    with World() as made:
        yield made
