"""What programs have sent before they ended still goes out, for a moment.

Linux's kernel outlives them, and sends and repeats it until the network namespace goes. A sandbox
ends with its programs, and a further container leaves its links then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.net.stack import Stack

PATIENCE_NS: Final = 200_000_000
"""The end is told after it, so it is short: some round trips."""
LOOK_NS: Final = 2_000_000


def is_left(stack: Stack) -> bool:
    """Frames wait for a link, or bytes, or an end, for the other side to acknowledge."""
    if stack.ip is None:
        return False
    if any(link.outgoing for link in stack.ip.links.values()):
        return True
    return stack.tcp is not None and stack.tcp.has_unsaid()


def when_said(stack: Stack, loop: Any, then: Callable[[], object]) -> None:
    """Call it once nothing is left, or it has taken too long; now if nothing is."""
    until_ns = loop.now_ns() + PATIENCE_NS

    def look() -> None:
        now_ns = loop.now_ns()
        if now_ns >= until_ns or not is_left(stack):
            then()
        else:
            loop.call_at(now_ns + LOOK_NS, look)

    look()
