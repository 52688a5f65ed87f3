"""How one waits: all that is different between `runsc.api.aio` and `runsc.api.blocking`. See there.

Not generated.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def ready(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
    """Which of the descriptors have an event, POLL* bits both ways; none when the time is over."""
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    timeout_ms = None if seconds is None else max(0, math.ceil(seconds * 1000))
    return dict(poll.poll(timeout_ms))


def call(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What a function gives that may take its time with files of the host."""
    return function(*arguments, **options)
