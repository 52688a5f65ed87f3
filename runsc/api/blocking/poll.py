"""How one waits: all that is different between `runsc.api.aio` and `runsc.api.blocking`. See there.

Not generated.
"""

from __future__ import annotations

import math
import select
import threading
from collections.abc import Mapping
from typing import Final

DAY_S: Final = 86_400
Lock: Final = threading.Lock
"""Of one thread at a time."""


def ready(wanted: Mapping[int, int], seconds: float | None) -> dict[int, int]:
    """Which of the descriptors have an event, POLL* bits both ways; none when the time is over.

    One that another thread has closed meanwhile (-1) has one, too: who waits looks again.
    """
    poll = select.poll()
    for fd, events in wanted.items():
        if fd < 0:
            return {fd: select.POLLNVAL}
        poll.register(fd, events)
    while seconds is not None and seconds > DAY_S:  # poll(2) counts 24 of them at most
        if found := dict(poll.poll(DAY_S * 1000)):
            return found
        seconds -= DAY_S
    timeout_ms = None if seconds is None else max(0, math.ceil(seconds * 1000))
    return dict(poll.poll(timeout_ms))
