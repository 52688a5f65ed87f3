"""A stack of its own behind the interfaces of a namespace of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import AT_FDCWD, O_NONBLOCK
from sentry.config import StartError
from sentry.control.outside import beside_init
from sentry.errors import Errno
from sentry.mm.buffers import KernelDest
from sentry.net.inet import leaving, tcp_link
from sentry.net.ip.layer import IpLayer
from sentry.net.link.follow import Uplinks
from sentry.vfs.open import OpenHow, open_path
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.config import SandboxConfig
    from sentry.kernel.container import Container
    from sentry.net.host.process import NetworkProcess
    from sentry.net.host.view import HostView
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack

RESOLV_CONF = b"/etc/resolv.conf"
MAX_RESOLV_CONF = 1 << 16


def plug_in(
    stack: Stack, view: HostView, process: NetworkProcess, loop: Any, sender: Sender | None
) -> None:
    """From now on the interfaces that the view shows are links of the stack."""
    stack.ip = IpLayer(stack.interfaces, stack.sysctls, os.urandom)
    leaving.plug(stack)
    tcp_link.plug(stack)
    uplinks = Uplinks(stack, stack.ip, process, loop, sender)
    view.follow = uplinks.follow
    process.on_end = uplinks.close  # the host's own stack answers there from then on


async def judge(
    stack: Stack, container: Container, config: SandboxConfig, process: NetworkProcess, loop: Any
) -> None:
    """From now on its names are answered, and what leaves is judged. Preconditions: the container's
    first process is there, and has not run.

    Raises: StartError.
    """
    try:
        from sentry.net.egress.rules import PolicyError  # noqa: PLC0415
        from sentry.net.host.dialer import Dialer  # noqa: PLC0415
        from sentry.net.inet.egress import Egress  # noqa: PLC0415
        from sentry.net.inet.resolver import Resolver, nameservers  # noqa: PLC0415  an extra
    except ImportError:
        if config.egress is not None:
            raise StartError("egress needs dnspython: the extra runsc[network]") from None
        return
    resolver = Resolver(stack, process, loop, nameservers(await _resolv_conf(container)))
    if config.egress is not None:
        given = config.egress
        dialer = Dialer(given.dialer_fd, loop) if given.dialer_fd >= 0 else None
        try:
            Egress(stack, resolver, loop, given.policy, given.host_addresses, dialer)
        except PolicyError as error:
            raise StartError(str(error)) from None


async def _resolv_conf(container: Container) -> str:
    """As the container's first process reads it; empty if it cannot."""
    caller = beside_init(container)
    try:
        how = OpenHow.strict(O_NONBLOCK, 0, 0)
        file = (await again(open_path, caller, AT_FDCWD, RESOLV_CONF, how)).incref()
    except Errno:
        return ""
    dest = KernelDest(MAX_RESOLV_CONF)
    try:
        await again(file.read, caller, dest)
    except Errno:
        pass
    finally:
        file.decref()
    return dest.data.decode(errors="replace")
