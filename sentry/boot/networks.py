"""The network of a container that has one: sockets of the host, or a stack of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.boot.tree import reason
from sentry.config import StartError
from sentry.errors import Errno
from sentry.net.host.view import HostView

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentry.boot.uplinks import Behind
    from sentry.config import ContainerConfig
    from sentry.net.host.process import NetworkProcess
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack


class Outside:
    """Of a stack that is behind interfaces of the host, or may come to be in a copy."""

    def __init__(self, stack: Stack, loop: Any) -> None:
        self._stack = stack
        self._loop = loop
        self.behind: Behind | None = None

    def leave(self) -> None:
        """In a copy: nothing of it is there any more, and nobody outside hears of that."""
        behind, self.behind = self.behind, None
        if behind is not None:
            behind.leave()

    def join(self, fd: int, joined: Callable[[str], object]) -> None:
        """In a copy that has left: another one, by its network process; `joined` "" when it is
        there, or why not."""
        from sentry.net.host.process import NetworkProcess  # noqa: PLC0415  all forks share it

        view = self.follow(NetworkProcess(fd, self._loop), None)

        def looked(_: object, error: BaseException | None) -> None:
            why = reason(error) if isinstance(error, Errno) else repr(error)
            joined("" if error is None else f"the host's network: {why}")

        self._loop.spawn(view.look(), "network", looked)

    def follow(self, process: NetworkProcess, sender: Sender | None) -> HostView:
        """It is followed from now on."""
        from sentry.boot.uplinks import Behind  # noqa: PLC0415  few have it

        stack, loop = self._stack, self._loop
        stack.view = view = HostView(stack, process, loop)
        self.behind = Behind(stack, process, loop, sender)
        view.follow = self.behind.follow
        return view


async def connect(
    stack: Stack, config: ContainerConfig, process: NetworkProcess, loop: Any,
    sender: Sender | None = None,
) -> Outside | None:  # fmt: skip
    """What there is now is there, and is followed from now on. `process` has `config.network_fd`;
    `sender`: see `Uplinks`. What a copy of it leaves, if it is behind interfaces.

    Raises: StartError.
    """
    if config.link is not None:
        from sentry.net import given  # noqa: PLC0415  few have one
        from sentry.net.inet.relay import Relay  # noqa: PLC0415

        given.plug(stack, config.link)
        Relay(stack, process, loop)
        return None
    outside = None
    if config.network == "sandbox":
        outside = Outside(stack, loop)
        view = outside.follow(process, sender)
    else:
        stack.view = view = HostView(stack, process, loop)
        stack.host = process
    try:
        await view.look()
    except Errno as error:
        raise StartError(f"the host's network: {reason(error)}") from error
    return outside
