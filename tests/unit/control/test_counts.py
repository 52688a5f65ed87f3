"""How much of everything there is: objects by class."""

from __future__ import annotations

import pytest

from sentry.control.counts import counts
from sentry.fs.gofer.handles import HandleCache
from tests.world import World


class Odd:
    """As a class of mypyc's own is: it has a descriptor there."""


def test_class_whose_module_is_no_string_is_not_ours(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.kernel.services.handles = HandleCache()
    monkeypatch.setattr(Odd, "__module__", property())
    odd = Odd()

    found = counts(world.kernel)

    assert found["object sentry.kernel.kernel.Kernel"] >= 1
    assert not [name for name in found if type(odd).__qualname__ in name]
