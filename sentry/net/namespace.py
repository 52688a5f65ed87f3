"""`NetNamespace`: network_namespaces(7). Its stack is made when somebody first needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sentry.errors import Errno
from sentry.suppress import suppress

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.net.stack import Life, Stack
    from sentry.vfs.file import Caller


class NetNamespace:
    """What tasks share; sockets hold the stack."""

    __slots__ = ("_kernel", "_life", "_stack", "charge", "owner", "sysctls")

    def __init__(
        self,
        kernel: Any,
        sysctls: dict[str, str],
        owner: UserNamespace | None = None,
        charge: Charge | None = None,
    ) -> None:
        self._kernel = kernel
        self._stack: Stack | None = None
        self._life: Life | None = None
        self.owner = owner
        self.charge = charge
        self.sysctls = sysctls
        """What was written to /proc/sys/net/ipv4 and ipv6; the kernel's own in the first one."""

    @property
    def stack(self) -> Stack:
        """Interfaces, routes, ports."""
        if self._stack is None:
            from sentry.net.stack import Stack  # noqa: PLC0415  few programs ask

            self._stack = Stack(self._kernel, self.sysctls, self.owner, self.charge)
            self._life = self._stack.begin()
        return self._stack

    @property
    def is_untouched(self) -> bool:
        """Nobody has needed its stack, or set anything."""
        return self._stack is None and not self.sysctls

    def lines(self, name: str, users: UserNamespace | None = None) -> Iterable[str]:
        """What a file of /proc/net shows below its head, piece by piece; users as they have them.

        Raises: NotNow.
        """
        from sentry.net.tables import OF_INTERFACES, OF_USERS, TABLES  # noqa: PLC0415

        if name in OF_USERS:
            return OF_USERS[name](self.stack, users)
        fill = TABLES.get(name)
        if name in OF_INTERFACES:
            self.look()
        return () if fill is None else fill(self.stack)

    def followed(self) -> int:
        """How many connections netfilter follows here."""
        stack = self._stack
        if stack is None or stack.netfilter is None:
            return 0
        return len(stack.netfilter.conntrack.connections)

    def look(self) -> None:
        """See the interfaces of now. Raises: NotNow."""
        self.stack.look()

    @property
    def is_followed(self) -> bool:
        """Its links come and go with interfaces of the host, some time after these."""
        stack = self._stack
        return stack is not None and stack.view is not None and not stack.has_host_sockets

    async def catch_up(self) -> None:
        """What was plugged in before now can be used by who comes next."""
        if self.is_followed and self.stack.view is not None:
            with suppress(Errno):  # it is known as it was last
                await self.stack.view.look()

    @property
    def changes_by_itself(self) -> bool:
        """Its interfaces are the host's."""
        return self.stack.view is not None

    def link_names(self) -> list[str]:
        """The interfaces, for /sys/class/net."""
        return [link.name for link in self.stack.interfaces]

    def port_list(self, text: str) -> str:
        """Ports and ranges of them with commas between, in order. Raises: EINVAL."""
        from sentry.net.sysctls import ports_in, shown_ports  # noqa: PLC0415  few programs ask

        return shown_ports(ports_in(text)) if text else ""

    def turn_ipv6(self, link: Any, on: bool) -> None:
        """net.ipv6.conf.*.disable_ipv6, of one. Raises: EPERM for one of the host's."""
        from sentry.net.netlink.notices import turn_ipv6  # noqa: PLC0415  few programs ask

        turn_ipv6(self.stack, link, on)

    def turn_own_ipv6(self, on: bool) -> list[str]:
        """The same of all that programs have made; their names."""
        own = [link for link in self.stack.interfaces if link.driver is not None]
        for link in own:
            self.turn_ipv6(link, on)
        return [link.name for link in own]

    def vlan_names(self) -> list[str]:
        """The VLANs among them, for /proc/net/vlan."""
        from sentry.net.virtual.listing import vlans  # noqa: PLC0415  few programs ask

        return [each.interface.name for each in vlans(self.stack)]

    def vlans(self) -> Iterator[str]:
        """Which there are, line by line."""
        from sentry.net.virtual.listing import config  # noqa: PLC0415

        return config(self.stack)

    def vlan(self, name: str) -> str | None:
        """What one has counted; None: it is not there."""
        from sentry.net.virtual.listing import shown, vlans  # noqa: PLC0415

        found = (each for each in vlans(self.stack) if each.interface.name == name)
        return next(map(shown, found), None)

    def link(self, name: str) -> dict[str, str]:
        """The attributes of one; none of one that is not there."""
        from sentry.net.tables import attributes  # noqa: PLC0415

        found = next((link for link in self.stack.interfaces if link.name == name), None)
        return {} if found is None else attributes(found)


def stack_of(caller: Caller) -> Stack:
    """The stack of a task: its network namespace."""
    namespace: NetNamespace = caller.ns.net
    return namespace.stack
