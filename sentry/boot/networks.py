"""The network of a container that has one: sockets of the host, or a stack of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.boot.tree import reason
from sentry.config import StartError
from sentry.errors import Errno
from sentry.net.host.view import HostView

if TYPE_CHECKING:
    from sentry.config import ContainerConfig
    from sentry.net.host.process import NetworkProcess
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack


async def connect(
    stack: Stack, config: ContainerConfig, process: NetworkProcess, loop: Any,
    sender: Sender | None = None,
) -> None:  # fmt: skip
    """What there is now is there, and is followed from now on. `process` has `config.network_fd`;
    `sender`: see `Uplinks`.

    Raises: StartError.
    """
    if config.link is not None:
        from sentry.net import given  # noqa: PLC0415  few have one
        from sentry.net.inet.relay import Relay  # noqa: PLC0415

        given.plug(stack, config.link)
        Relay(stack, process, loop)
        return
    stack.view = view = HostView(stack, process, loop)
    if config.network == "sandbox":
        from sentry.boot.uplinks import Behind  # noqa: PLC0415

        view.follow = Behind(stack, process, loop, sender).follow
    else:
        stack.host = process
    try:
        await view.look()
    except Errno as error:
        raise StartError(f"the host's network: {reason(error)}") from error
