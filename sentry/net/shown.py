"""Lets /proc/net and /sys/class/net show the sandbox's stack, which nobody makes before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def connect(kernel: Any) -> None:
    """Make the stack known to the file systems."""
    kernel.services["proc_net"] = _table
    kernel.services["sys_net"] = _links


def _table(name: str) -> Callable[[Any], str] | None:
    """What gives the lines of a file of /proc/net, by the task that reads it."""
    from sentry.net.stack import stack_of  # noqa: PLC0415  few programs ask
    from sentry.net.tables import TABLES  # noqa: PLC0415

    fill = TABLES.get(name)
    return None if fill is None else lambda asked: fill(stack_of(asked))


def _links(asked: Any) -> dict[str, dict[str, str]]:
    """The attributes of each interface."""
    from sentry.net.stack import stack_of  # noqa: PLC0415
    from sentry.net.tables import attributes  # noqa: PLC0415

    return {link.name: attributes(link) for link in stack_of(asked).interfaces}
