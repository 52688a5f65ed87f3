"""The networks of forks: each by a passt(1) of its own, or behind the interfaces of a network
namespace that the caller names; no namespace is two sandboxes', for both would have its addresses.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.errors import RuntimeFailure
from runsc.launch import boot, isolation
from sentry.abi.nsfs import NS_GET_NSTYPE
from sentry.abi.sched import CLONE_NEWNET

if TYPE_CHECKING:
    from runsc.containers.state import State
    from runsc.options import Globals
    from sentry.config import LinkConfig

NAMESPACE: Final = "dev.runsc.network-namespace"
"""Annotation of a fork: behind whose interfaces it is; of a template, who goes on from there."""
ORIGIN: Final = "dev.runsc.fork-of"
"""Annotation of a fork: the container that it is a copy of."""


class Network(msgspec.Struct, frozen=True):
    """That of one fork; with neither it has none."""

    by_passt: bool = False
    namespace: str = ""

    @property
    def kind(self) -> str:
        """As the container's state has it."""
        return "sandbox" if self.by_passt or self.namespace else "none"


def of(state: State) -> Network:
    """What a container has."""
    if state.network != "sandbox":
        return Network()
    path = state.annotations.get(NAMESPACE, "")
    if not path and ORIGIN not in state.annotations and isolation.is_privileged():
        path = f"/proc/{state.pid}/ns/net"
    return Network(not path, path)


def wanted(
    origin: State, count: int, network: str | None, namespaces: Sequence[str], *, stands: bool
) -> list[Network]:
    """Of so many forks of a container: the network "none", "sandbox", or as it has (None), or each
    the one behind a namespace. `stands`: templates, which have none, but remember.

    Raises: RuntimeFailure.
    """
    own = of(origin)
    if namespaces:
        if network == "none" or stands:
            raise RuntimeFailure("a copy without a network has no network namespace")
        _check(origin, own, count, namespaces)
        return [Network(namespace=path) for path in namespaces]
    if network == "none":
        return [Network()] * count
    if network == "sandbox":
        return [Network(by_passt=True)] * count
    if own.namespace and not stands:
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
    if not own.namespace:
        raise RuntimeFailure(
            f'--netns: "{origin.id}" was not started behind the interfaces of a network namespace'
            " (--network=sandbox), so its copies cannot be"
        )
    known = {_identity("/proc/self/ns/net"): "the caller's own"}
    known[_identity(own.namespace)] = f'that of "{origin.id}"'
    for path in namespaces:
        found = _identity(path)
        if found in known:
            raise RuntimeFailure(f"--netns: {path} is {known[found]}, and each needs its own")
        known[found] = "named twice"


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


def behind(flags: Globals, origin: State, name: str, path: str, log: int, *, outlives: bool) -> int:
    """The way to a network process in a namespace; the descriptor is ours.

    Raises: RuntimeFailure.
    """
    from runsc.launch import network, silence  # noqa: PLC0415  few have one

    if why := silence.why_not():
        raise RuntimeFailure(f"--netns: {why}")
    fd = _opened(path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, _terms(origin, outlives=outlives) as terms:
        asked = network.Network(name, fd, log_fd=log, uplinks=True)
        try:
            network.spawn(asked, theirs.fileno(), flags.switches, terms)
        except BaseException:
            ours.close()
            raise
        finally:
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
