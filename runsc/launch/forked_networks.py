"""The networks of forks: each by a passt(1) of its own, behind the interfaces of a network
namespace that the caller names, or, of a sandbox with sockets of the host, with such of its own.

No namespace has two sandboxes behind its interfaces, for both would have its addresses.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.containers.state import NAMESPACE, ORIGIN, TEMPLATE, status
from runsc.errors import RuntimeFailure
from runsc.launch import boot, isolation
from sentry.abi.nsfs import NS_GET_NSTYPE
from sentry.abi.sched import CLONE_NEWNET

if TYPE_CHECKING:
    from runsc.containers.state import State
    from runsc.options import Globals
    from sentry.config import LinkConfig

EMPTY: Final = "none"
"""In place of NAMESPACE: in one of its own."""


class Network(msgspec.Struct, frozen=True):
    """That of one fork: by passt, or by a network process. With neither it has none."""

    by_passt: bool = False
    namespace: str = ""
    """Behind whose interfaces it is, or where it has sockets of the host; empty: the caller's."""
    of_host: bool = False
    """Sockets of the host."""
    is_empty: bool = False
    """These are in a namespace that is new, with a loopback interface alone."""

    @property
    def is_behind(self) -> bool:
        """It has the addresses of a namespace, as nobody else may."""
        return bool(self.namespace) and not self.of_host

    @property
    def kind(self) -> str:
        """As the container's state has it."""
        if self.of_host:
            return "host"
        return "sandbox" if self.by_passt or self.namespace else "none"


def of(state: State) -> Network:
    """What a container has."""
    path = state.annotations.get(NAMESPACE, "")
    if not path and ORIGIN not in state.annotations and isolation.is_privileged():
        path = f"/proc/{state.pid}/ns/net"
    if state.network == "host":
        is_empty = path == EMPTY
        return Network(namespace="" if is_empty else path, of_host=True, is_empty=is_empty)
    return Network(not path, path) if state.network == "sandbox" else Network()


def wanted(
    origin: State, count: int, network: str | None, namespaces: Sequence[str], *, stands: bool
) -> list[Network]:
    """Of so many forks of a container: the network "none", "sandbox", or as it has (None), or each
    the one of a namespace. `stands`: templates, which have none, but remember.

    Raises: RuntimeFailure.
    """
    own = of(origin)
    if namespaces:
        if network == "none" or stands:
            raise RuntimeFailure("a copy without a network has no network namespace")
        _check(origin, own, count, namespaces)
        return [Network(namespace=path, of_host=own.of_host) for path in namespaces]
    if network == "none":
        return [Network(of_host=own.of_host, is_empty=own.of_host)] * count
    if network == "sandbox" and own.of_host:
        raise RuntimeFailure(
            f'"{origin.id}" has sockets of the host, and a copy has such sockets, too: leave out'
            " --network=sandbox, name a network namespace (--netns), or say --network=none"
        )
    if network == "sandbox":
        return [Network(by_passt=True)] * count
    if own.kind == "sandbox" and own.namespace and not stands:
        raise RuntimeFailure(
            f'"{origin.id}" has the addresses of a network namespace, which no copy can have, too:'
            " name another one (--netns), or say --network=none, or --network=sandbox for passt(1)"
        )
    return [own] * count


def _check(origin: State, own: Network, count: int, namespaces: Sequence[str]) -> None:
    """Raises: RuntimeFailure."""
    if not isolation.is_privileged():
        raise RuntimeFailure("--netns: an ordinary user may not enter a network namespace")
    if len(namespaces) != count:
        raise RuntimeFailure(f"--netns: one for each copy, {count}, not {len(namespaces)}")
    if own.by_passt or own.kind == "none":
        raise RuntimeFailure(
            f'--netns: "{origin.id}" was not started behind the interfaces of a network namespace'
            " (--network=sandbox), or with sockets of the host (--network=host)"
        )
    if own.of_host:
        for path in namespaces:
            _identity(path)
        return
    known = {_identity(own.namespace): f'that of "{origin.id}"'}
    known[_identity("/proc/self/ns/net")] = "the caller's own"
    for path in namespaces:
        found = _identity(path)
        if found in known:
            raise RuntimeFailure(f"--netns: {path} is {known[found]}, and each needs its own")
        known[found] = "named twice"


def check_alone(made: Sequence[State], others: Sequence[State]) -> None:
    """Behind the interfaces of what forks are noted to be is nobody who was noted before: of two
    that are made at once the first one stays. Raises: RuntimeFailure."""
    mine = {_identity(each.annotations[NAMESPACE]): each for each in made}
    ours = {each.id for each in made}
    for other in others:
        found = of(other)
        stands = TEMPLATE in other.annotations
        if other.id in ours or stands or not found.is_behind or status(other) == "stopped":
            continue
        try:
            state = mine.get(_identity(found.namespace))
        except RuntimeFailure:  # it has just ended
            continue
        if state is not None and (_noted(other), other.id) < (_noted(state), state.id):
            path = state.annotations[NAMESPACE]
            raise RuntimeFailure(f'--netns: {path} is that of "{other.id}", and each needs its own')


def _noted(state: State) -> str:
    """When, so that what is later is more."""
    return state.created.removesuffix("Z")


def _identity(path: str) -> tuple[int, int]:
    """Which network namespace that is. Raises: RuntimeFailure."""
    fd = _opened(path)
    found = os.fstat(fd)
    os.close(fd)
    return found.st_dev, found.st_ino


def _opened(path: str) -> int:
    """A network namespace. Raises: RuntimeFailure."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RuntimeFailure(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    with suppress(OSError):
        if fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET:
            return fd
    os.close(fd)
    raise RuntimeFailure(f"{path} is no network namespace")


def link(origin: State, log: int, *, outlives: bool) -> LinkConfig:
    """A network like an ordinary user's; its descriptor is ours. Raises: RuntimeFailure."""
    from runsc.launch import passt  # noqa: PLC0415  few have one

    path = passt.find()
    if not path:
        raise RuntimeFailure("a network of a fork's own needs passt(1)")
    if not passt.ways().leads:
        raise RuntimeFailure("no network for a fork: the host has no default route")
    with _terms(origin, outlives=outlives) as terms:
        return passt.start(path, terms, log)[0]


def process(
    flags: Globals, origin: State, name: str, found: Network, log: int, *, outlives: bool
) -> int:
    """The way to a network process; the descriptor is ours. Raises: RuntimeFailure."""
    from runsc.launch import network, silence  # noqa: PLC0415  few have one

    if not found.of_host and (why := silence.why_not()):
        raise RuntimeFailure(f"--netns: {why}")
    fd = _opened(found.namespace) if found.namespace else -1
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, _terms(origin, outlives=outlives) as terms:
        asked = network.Network(
            name, fd, found.is_empty, origin.low_ports, log, uplinks=not found.of_host
        )
        try:
            network.spawn(asked, theirs.fileno(), flags.switches, terms)
        except BaseException:
            ours.close()
            raise
        finally:
            if fd >= 0:
                os.close(fd)
    return ours.detach()


@contextmanager
def _terms(origin: State, *, outlives: bool) -> Iterator[boot.Terms]:
    """Those of a process beside a fork: in the cgroup of what that is a fork of."""
    joins: tuple[int, ...] = ()
    if origin.cgroups.directories:
        from runsc.cgroups.recorded import of as recorded  # noqa: PLC0415  few containers have one

        joins = recorded(origin.cgroups).open_joins()
    try:
        yield boot.Terms(outlives=outlives, joins=joins)
    finally:
        for fd in joins:
            os.close(fd)
