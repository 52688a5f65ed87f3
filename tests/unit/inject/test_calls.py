"""Before the handlers of system calls: which rule is for a call."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sentry.abi.limits import PATH_MAX
from sentry.faults import InjectRule
from sentry.inject.calls import Faulty
from sentry.inject.choice import Choice


class Named(Faulty):
    """All its calls are about one file."""

    name = b""

    def _path(self, task: Any, values: tuple[Any, ...]) -> bytes:
        return self.name


@pytest.mark.parametrize(("size", "fits"), [(PATH_MAX - 1, True), (PATH_MAX, False)])
def test_longer_paths_than_a_call_can_give_match_nothing(size: int, fits: bool) -> None:
    """Of a directory far below others: the look takes the square of their length."""
    choice = Choice(InjectRule(("openat",), errno="EIO", paths=("/**x**y",)))
    faulty = Named([choice])
    faulty.name = b"/" + b"x" * (size - 2) + b"y"
    assert (faulty._chosen(cast("Any", None), ()) is choice) == fits
