"""The network of a container that has one: sockets of the host, or a stack of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.config import StartError
from sentry.errors import Errno
from sentry.net.host.view import HostView

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.boot.uplinks import Behind
    from sentry.config import ContainerConfig
    from sentry.net.host.process import NetworkProcess
    from sentry.net.host.socket import HostSocket
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack


class Outside:
    """What a copy leaves, and another network that it has instead."""

    def __init__(self, stack: Stack, process: NetworkProcess, loop: Any) -> None:
        self.stack = stack
        self.process = process
        self.loop = loop

    @property
    def is_asked(self) -> bool:
        """The network process has not answered all yet."""
        return self.process.is_asked

    def leave(self, null: int = -1) -> None:
        """Nothing of it is there any more, and nobody outside hears of that. In a copy /dev/null
        is under the number of each socket of the host then."""
        self.process.close()

    def join(self, fd: int, joined: Callable[[str], object]) -> None:
        """In a copy that has left: another one, by its network process; `joined` "" when it is
        there, or why not."""
        from sentry.net.host.process import NetworkProcess  # noqa: PLC0415  all forks share it

        def entered(_: object, error: BaseException | None) -> None:
            why = error.why() if isinstance(error, Errno) else repr(error)
            joined("" if error is None else f"the host's network: {why}")

        self.process = NetworkProcess(fd, self.loop)
        self.loop.spawn(self.enter(), "network", entered)

    async def enter(self) -> None:
        """It is there when this ends. Raises: what a list raises."""
        raise NotImplementedError


class Interfaces(Outside):
    """A stack of its own behind interfaces."""

    def __init__(
        self, stack: Stack, process: NetworkProcess, loop: Any, sender: Sender | None
    ) -> None:
        super().__init__(stack, process, loop)
        self._sender = sender
        self._behind: Behind | None = None

    def leave(self, null: int = -1) -> None:
        super().leave()
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.leave()

    async def enter(self) -> None:
        from sentry.boot.uplinks import Behind  # noqa: PLC0415  few have it

        self._behind = Behind(self.stack, self.process, self.loop, self._sender)
        self.stack.view = view = HostView(self.stack, self.process, self.loop)
        view.follow = self._behind.follow
        await view.look()


class HostSockets(Outside):
    """Sockets of the host."""

    _has_left = True
    """Also in a copy of one that has, a template."""

    def leave(self, null: int = -1) -> None:
        super().leave()
        if not self._has_left:
            for each in self._sockets():
                each.cut(null)
        self._has_left = True

    async def enter(self) -> None:
        """With others in place of those that a copy has left."""
        stack, process = self.stack, self.process
        stack.host = process
        stack.view = view = HostView(stack, process, self.loop)
        await view.look()
        for each in self._sockets():
            each.renew(await process.make(each.family, each.kind, each.protocol))
        self._has_left = False

    def _sockets(self) -> list[HostSocket]:
        from sentry.net.host.socket import HostSocket  # noqa: PLC0415  not all have these

        return [each for each in self.stack.sockets if isinstance(each, HostSocket)]


async def connect(
    stack: Stack, config: ContainerConfig, process: NetworkProcess, loop: Any,
    sender: Sender | None = None,
) -> Outside | None:  # fmt: skip
    """What there is now is there, and is followed from now on. `process` has `config.network_fd`;
    `sender`: see `Uplinks`. What a copy of it leaves, but passt's.

    Raises: StartError.
    """
    if config.link is not None:
        from sentry.net import given  # noqa: PLC0415  few have one
        from sentry.net.inet.relay import Relay  # noqa: PLC0415

        given.plug(stack, config.link)
        Relay(stack, process, loop)
        return None
    is_behind = config.network == "sandbox"
    outside = (
        Interfaces(stack, process, loop, sender) if is_behind else HostSockets(stack, process, loop)
    )
    try:
        await outside.enter()
    except Errno as error:
        raise StartError(f"the host's network: {error.why()}") from error
    return outside
