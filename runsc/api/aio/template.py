"""`AsyncTemplate`: a sandbox that only serves to be forked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Forked(Protocol):
    """What a sandbox can do."""

    sandbox_id: str

    async def pause(self) -> None: ...
    async def kill(self) -> bool: ...
    async def fork(
        self, count: int = 1, *, timeout: float | None = None, hostname: str = "",
        memory: int | None = None, network: str | Sequence[str] | None = None,
        forkable: bool = False,
    ) -> Sequence[Self]: ...  # fmt: skip


Kind = TypeVar("Kind", bound=Forked)


class AsyncTemplate(Generic[Kind]):
    """A sandbox that stands still for ever, in memory, to be forked: what it is does not change."""

    def __init__(self, sandbox: Kind) -> None:
        self._sandbox = sandbox

    @classmethod
    async def of(cls, sandbox: Kind) -> Self:
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
        self, count: int = 1, *, timeout: float | None = None, hostname: str = "",
        memory: int | None = None, network: str | Sequence[str] | None = None,
        forkable: bool = False,
    ) -> Sequence[Kind]:  # fmt: skip
        """Sandboxes that go on from there: see `AsyncSandbox.fork`."""
        return await self._sandbox.fork(
            count, timeout=timeout, hostname=hostname, memory=memory, network=network,
            forkable=forkable,
        )  # fmt: skip

    async def kill(self) -> bool:
        """End it, and with it all its forks. False if it was gone."""
        return await self._sandbox.kill()
