"""What of a sandbox is not any more as it was made: who judges what it does has been changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runsc.api.aio.wire import ask
from runsc.api.errors import SandboxError
from runsc.api.order import Now
from runsc.launch.policy import LEARN
from sentry.control.orders import PolicyOrder
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.api.aio.connections import AsyncConnections


async def now(path: str, connections: AsyncConnections) -> Now:
    """For one that begins in its place: its policies, and what of their limits is used up.

    Raises: SandboxEnded; SandboxError if that one could not begin with them.
    """
    told = (await ask(path, Request("policy", policy=PolicyOrder("show")))).policy
    policy = None if told is None or told.name == LEARN else told.source
    egress = await connections.apart()
    if egress is None:
        return Now(policy=policy)
    from sentry.net.egress.rules import brokers, parse  # noqa: PLC0415  few have one

    for broker in brokers(parse(egress.policy, "egress")):
        if not os.path.exists(broker):
            raise SandboxError(f"its egress policy has a broker that is gone: {broker}")
    return Now(egress.policy, tuple(egress.used), policy)
