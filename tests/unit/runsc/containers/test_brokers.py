"""No seal of ours is under a broker that a sandbox says it has, and was never given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runsc.containers import snapshots
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from sentry.control.orders import Decided
from tests.unit.runsc.api.test_policies import BROKER, POLICY


def test_a_snapshot_is_not_sealed_with_a_broker_that_was_never_given() -> None:
    state = State("1.2.0", "c", "/b", annotations={snapshots.OF_API: "{}"})
    made: Any = SimpleNamespace(
        platform="", objects_size=0, objects_check=0, pages=0, piece=0, checks=(), name="", own=0,
        origins=(), decided=Decided(egress=POLICY),
    )  # fmt: skip
    wish: Any = SimpleNamespace(compression="none")

    with pytest.raises(RuntimeFailure, match=f"never given: {BROKER}"):
        snapshots._manifest(state, made, wish, None)

    state.brokers = (BROKER,)
    annotations = snapshots._manifest(state, made, wish, None).annotations
    assert "api.sock" in annotations[snapshots.DECIDED]
