"""A program that mounts images, and the two forms in which roots are made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.filesystems.calls import Files
from tests.unit.runsc.images.making import AS_ROOT
from tests.world import World


@pytest.fixture
def files() -> Iterator[Files]:
    with World() as world:
        yield Files(world.program())


@pytest.fixture(params=["erofs", pytest.param("folder", marks=AS_ROOT)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form of the roots that `root_of` makes, whoever runs the test."""
    monkeypatch.setattr("runsc.images.roots.form", lambda: request.param)
    return str(request.param)
