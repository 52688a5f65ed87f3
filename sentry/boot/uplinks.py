"""A stack of its own behind the interfaces of a namespace of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.abi.fcntl import AT_FDCWD
from sentry.config import StartError
from sentry.control.outside import AS_NOBODY, beside_init
from sentry.errors import Errno
from sentry.mm.buffers import KernelDest
from sentry.net.host.interfaces import show
from sentry.net.interfaces import LOOPBACK_INDEX
from sentry.vfs.open import OpenHow, open_used
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.config import EgressConfig
    from sentry.kernel.container import Container
    from sentry.net.host.process import NetworkProcess
    from sentry.net.inet.entrances import Entrances
    from sentry.net.link.follow import Uplinks
    from sentry.net.link.sender import Sender
    from sentry.net.stack import Stack

RESOLV_CONF = b"/etc/resolv.conf"
MAX_RESOLV_CONF = 1 << 16


class Behind:
    """What keeps the links of a stack like the interfaces that a view shows.

    With the first one the stack gets its IP layer; before, it is as any that has the loopback
    alone, and nothing of that is imported.
    """

    def __init__(
        self, stack: Stack, process: NetworkProcess, loop: Any, sender: Sender | None
    ) -> None:
        self._stack = stack
        self._process = process
        self._loop = loop
        self._sender = sender
        self._uplinks: Uplinks | None = None
        self._entrances: Entrances | None = None
        process.on_end = self._ended

    async def follow(self, parts: list[bytes]) -> None:
        """A list has been shown."""
        if self._uplinks is None:
            shown = (each for each in self._stack.interfaces if each.driver is None)
            if all(each.is_loopback for each in shown):
                return
            self._uplinks = self._begin()
        await self._uplinks.follow(parts)

    def _begin(self) -> Uplinks:
        from sentry.net.inet.entrances import Entrances  # noqa: PLC0415  see above
        from sentry.net.inet.relay import Relay  # noqa: PLC0415
        from sentry.net.link.follow import Uplinks  # noqa: PLC0415
        from sentry.net.made import plug_in  # noqa: PLC0415

        layer = plug_in(self._stack)
        self._entrances = Entrances(self._stack, self._process, self._loop)
        if self._stack.resolver is None:
            Relay(self._stack, self._process, self._loop)
        return Uplinks(self._stack, layer, self._process, self._loop, self._sender)

    def _ended(self) -> None:
        """The host's own stack answers there from now on."""
        if self._uplinks is not None:
            self._uplinks.close()

    def leave(self) -> None:
        """In a copy: connections by these interfaces are reset, of which nobody outside hears, and
        they are shown no more."""
        self._process.close()
        stack = self._stack
        gone = {each.index for each in stack.interfaces if each.driver is None}
        gone.discard(LOOPBACK_INDEX)
        if stack.tcp is not None:
            stack.tcp.reset_by(gone)
        if self._entrances is not None:
            self._entrances.close()
        if stack.resolver is not None:
            stack.resolver.close()
        for _ in show(stack, (), links_only=False):
            pass
        stack.view = None
        stack.outdate()


async def judge(
    stack: Stack, container: Container, given: EgressConfig, process: NetworkProcess, loop: Any
) -> None:
    """From now on what leaves is judged, and names are answered here, not by a relay.
    Preconditions: the container's first process is there, and has not run.

    Raises: StartError.
    """
    try:
        from sentry.net.egress.rules import PolicyError  # noqa: PLC0415
        from sentry.net.host.dialer import Dialer  # noqa: PLC0415
        from sentry.net.inet.egress import Egress  # noqa: PLC0415
        from sentry.net.inet.resolver import Resolver, nameservers  # noqa: PLC0415  an extra
    except ImportError:
        raise StartError("egress needs dnspython: the extra runsc[network]") from None
    from sentry.net.made import plug_in  # noqa: PLC0415

    plug_in(stack)
    resolver = Resolver(stack, process, loop, nameservers(await _resolv_conf(container)))
    dialer = Dialer(given.dialer_fd, loop) if given.dialer_fd >= 0 else None
    try:
        egress = Egress(stack, resolver, loop, given.policy, given.host_addresses, dialer)
    except PolicyError as error:
        raise StartError(str(error)) from None
    egress.flows.go_on_from(given.used)


async def _resolv_conf(container: Container) -> str:
    """As the container's first process reads it; empty if it cannot."""
    caller = beside_init(container)
    try:
        how = OpenHow.strict(AS_NOBODY, 0, 0)
        file = await again(open_used, caller, AT_FDCWD, RESOLV_CONF, how)
    except Errno:
        return ""
    dest = KernelDest(MAX_RESOLV_CONF)
    try:
        if file.inode.is_regular:  # nothing else is waited for
            await again(file.read, caller, dest)
    except Errno:
        pass
    finally:
        file.decref()
    return dest.data.decode(errors="replace")
