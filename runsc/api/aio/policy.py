"""Who decides on a sandbox's system calls: another policy, and what it asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runsc.api.aio.wire import ask
from runsc.api.errors import SandboxEnded, SandboxError
from runsc.api.values import PolicyQuestion
from runsc.errors import RuntimeFailure
from runsc.launch import policy as policies
from sentry.config import PolicyConfig
from sentry.control.answers import PolicyTold
from sentry.control.orders import PolicyOrder
from sentry.control.protocol import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class AsyncPolicy:
    """Of one sandbox: `sandbox.policy`."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def load(self, policy: str | os.PathLike[str] | None) -> None:
        """It decides from now on, in place of the one before; None: nobody does. Python as text, or
        the path of a file with Python or (.toml) rules.

        Raises: SandboxEnded, SandboxError, which says what is wrong with it; nothing changes then.
        """
        config = PolicyConfig("policy", source_of(policy)) if policy is not None else None
        await self._order(PolicyOrder("load", config))

    async def source(self) -> str:
        """The policy, as Python; empty if there is none. Raises: SandboxEnded."""
        return (await self._order(PolicyOrder("show"))).source

    async def counts(self) -> Mapping[str, int]:
        """HANDLER.VERDICT: how often, since it was loaded; HANDLER.failed. Raises: SandboxEnded."""
        return (await self._order(PolicyOrder("show"))).counts

    async def pending(self) -> list[PolicyQuestion]:
        """What it asks and nobody has answered. Raises: SandboxEnded."""
        return _questions(await self._order(PolicyOrder("show")))

    async def answer(self, number: int, verdict: str) -> None:
        """Decide: "allow", "deny", "deny EACCES", "kill", "result 0".

        Raises: SandboxEnded; SandboxError if nobody asks that any more.
        """
        await self._order(PolicyOrder("answer", number=number, verdict=verdict))

    async def questions(self) -> AsyncIterator[PolicyQuestion]:
        """What it asks, as it asks, until the sandbox ends."""
        after = 0
        while True:
            try:
                reply = await ask(self._path, Request("questions", after=after), patience_s=None)
            except SandboxEnded:
                return
            if reply.error:
                raise SandboxError(reply.error)
            for question in _questions(reply.policy or PolicyTold()):
                after = max(after, question.number)
                yield question

    async def _order(self, order: PolicyOrder) -> PolicyTold:
        reply = await ask(self._path, Request("policy", policy=order))
        if reply.error:
            raise SandboxError(reply.error)
        return reply.policy or PolicyTold()


def source_of(policy: str | os.PathLike[str]) -> str:
    """The Python that a policy is. Raises: SandboxError."""
    if isinstance(policy, str):
        return policy
    try:
        return policies.read(os.fspath(policy)).source
    except RuntimeFailure as error:
        raise SandboxError(str(error)) from None


def _questions(told: PolicyTold) -> list[PolicyQuestion]:
    return [
        PolicyQuestion(
            each.number, each.text, each.what, each.pid, each.program, each.left_ns / 1e9
        )
        for each in told.questions
    ]
