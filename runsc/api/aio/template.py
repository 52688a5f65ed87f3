"""`AsyncTemplate`: a sandbox that only serves to be forked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from runsc.api.aio.sandbox import AsyncSandbox


class AsyncTemplate:
    """A sandbox that stands still for ever, in memory, to be forked: what it is does not change."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox

    @classmethod
    async def of(cls, sandbox: AsyncSandbox) -> Self:
        """Have a sandbox that was made `forkable` stand still, as it is now. Raises: SandboxEnded,
        SandboxError."""
        await sandbox.pause()
        return cls(sandbox)

    @property
    def sandbox_id(self) -> str:
        """The sandbox's."""
        return self._sandbox.sandbox_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, and with it all its forks."""
        await self.kill()

    async def fork(
        self, count: int = 1, *, timeout: float | None = None, hostname: str = ""
    ) -> Sequence[AsyncSandbox]:
        """Sandboxes that go on from there: see `AsyncSandbox.fork`."""
        return await self._sandbox.fork(count, timeout=timeout, hostname=hostname)

    async def kill(self) -> bool:
        """End it, and with it all its forks. False if it was gone."""
        return await self._sandbox.kill()
