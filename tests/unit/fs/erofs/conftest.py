"""A program that mounts images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.filesystems.calls import Files
from tests.world import World


@pytest.fixture
def files() -> Iterator[Files]:
    with World() as world:
        yield Files(world.program())
