"""RTM_GETNSID: the number that one network namespace has in another. net/core/net_namespace.c."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.errors import EINVAL, EOPNOTSUPP, ESRCH
from sentry.net.netlink.message import Reply, Request, number, u32
from sentry.net.netlink.registry import handles

if TYPE_CHECKING:
    from sentry.net.stack import Stack

NONE: Final = -1
"""NETNSA_NSID_NOT_ASSIGNED."""
HEAD: Final = 4
"""struct rtgenmsg, padded."""


def named(caller: Any, pid: bytes | None, fd: bytes | None) -> Stack | None:
    """The stack of the namespace of a process, or of one that is open; None: neither is given.

    Raises: ESRCH, EBADF, EINVAL.
    """
    if pid is not None:
        task = caller.group.pids.task(number(pid))
        if task is None or task.dead:
            raise ESRCH("no such process")
        namespace = task.ns.net
    elif fd is not None:
        inode = caller.files.get(number(fd)).inode
        if getattr(inode, "kind_name", "") != "net":
            raise EINVAL("not a network namespace")
        namespace = inode.namespace
    else:
        return None
    stack: Stack = namespace.stack
    return stack


@handles(NETLINK_ROUTE, abi.RTM_GETNSID)
def get_number(request: Request) -> Iterable[Reply]:
    """Of one namespace, or of all that have one."""
    numbers = request.stack.numbers()
    if request.flags & abi.NLM_F_DUMP:
        return [_message(each) for each in sorted(numbers.values())]
    attributes = request.attributes(HEAD)
    if abi.NETNSA_NSID in attributes:
        raise EOPNOTSUPP("a namespace of another's numbers")
    found = named(request.caller, attributes.get(abi.NETNSA_PID), attributes.get(abi.NETNSA_FD))
    if found is None:
        raise EINVAL("no namespace is named")
    return [_message(numbers.get(found, NONE))]


def _message(value: int) -> Reply:
    return abi.RTM_NEWNSID, bytes(HEAD) + u32(abi.NETNSA_NSID, value)
