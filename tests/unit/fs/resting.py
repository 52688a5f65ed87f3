"""Coroutines of file systems, without the loop."""

from __future__ import annotations

from typing import Any

import pytest


def done(work: Any) -> None:
    """Run to its end, which it comes to without sleeping for anything but to let others run."""
    with pytest.raises(StopIteration):
        while work.send(None).deadline_ns == 0:
            pass
