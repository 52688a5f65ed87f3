"""What of a sandbox is not any more as it was made: its owner has decided something else since."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from runsc.api import states
from runsc.api.aio.wire import ask
from runsc.api.errors import SandboxError
from runsc.api.order import Now
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from runsc.api.aio.connections import AsyncConnections


async def now(path: str, connections: AsyncConnections) -> Now:
    """For one that begins in its place: its policies, and what of their limits is used up, and its
    faults.

    Raises: SandboxEnded; SandboxError if that one could not begin with them.
    """
    reply = await ask(path, Request("decided"))
    if reply.decided is None:
        raise SandboxError(reply.error or "the sandbox does not say what was decided about it")
    found = states.now_of(reply.decided)
    egress = await connections.apart()
    if egress is None:  # whatever it says in the other answer
        return msgspec.structs.replace(found, egress=None)
    from sentry.net.egress.rules import brokers, parse  # noqa: PLC0415  few have one

    for broker in brokers(parse(egress.policy, "egress")):
        if not os.path.exists(broker):
            raise SandboxError(f"its egress policy has a broker that is gone: {broker}")
    return msgspec.structs.replace(found, egress=egress.policy, used=tuple(egress.used))
