"""Which network a container has: what was said, what config.json lists, what its caller may do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from sentry.abi.layout import Record

if TYPE_CHECKING:
    from runsc.oci.convert import Container
    from runsc.options import Globals

DEFAULT: Final = "sandbox"
"""Where nothing is said and config.json lists a network namespace."""


class Choice(Record):
    """One of the values of --network."""

    network: str
    instead: str = ""
    """Why it is not what it would be by default."""


def settled(flags: Globals, container: Container) -> Globals:
    """With the network that the container has. What is another one than by default is logged.

    Raises: RuntimeFailure.
    """
    found = choice(flags, container)
    if flags.network is not None:
        return flags.changed(network=found.network)
    if found.instead:
        flags.log.write("info", f"--network={found.network}: {found.instead}")
    return flags.changed(network=found.network, network_is_default=True)


def network_of(flags: Globals, container: Container) -> str:
    """--network; by default a stack of the sandbox's own, where this caller may have one.

    Raises: RuntimeFailure.
    """
    return choice(flags, container).network


def choice(flags: Globals, container: Container) -> Choice:
    """Sockets of the host, or a stack behind interfaces, are for who may do with the container's
    namespace as he likes. An ordinary user's sockets would be in another one than its stand-in,
    where there is nothing to plug into: with a stack, where a new one is asked for, what is plugged
    in is passt.

    Raises: RuntimeFailure.
    """
    if flags.network in ("none", "host"):
        return Choice(flags.network)
    asked = dict(container.namespaces).get("network")
    if asked is None:
        return Choice("none")
    is_said, wanted = flags.network is not None, flags.network or DEFAULT
    if isolation.is_privileged():
        if wanted != "sandbox":
            return Choice(wanted)
        if asked and _is_callers(asked):
            why = f"{asked} is the caller's own network namespace, whose others have it, too"
            if is_said:
                raise RuntimeFailure(f"--network=sandbox: {why}")
            return Choice("host", why)
        why = "" if is_said else _why_no_packets(container)
        return Choice("host", why) if why else Choice("sandbox")
    if asked or wanted != "sandbox":
        return Choice("none")
    if not is_said:
        why = why_no_passt()
        return Choice("none", why) if why else Choice("sandbox")
    if not _passt():
        raise RuntimeFailure("--network=sandbox: an ordinary user needs passt(1) for it")
    return Choice("sandbox")


def passt_of(flags: Globals) -> str:
    """The program, where it is an ordinary user's network; empty: where it is not."""
    if isolation.is_privileged() or flags.network != "sandbox":
        return ""
    return _passt()


def _passt() -> str:
    from runsc.launch import passt  # noqa: PLC0415  few have it

    return passt.find()


def why_no_passt() -> str:
    """What keeps an ordinary user from what is said by nobody: empty, or a reason."""
    from runsc.launch import passt  # noqa: PLC0415

    if not passt.find():
        return "an ordinary user needs passt(1) for another one"
    return "" if passt.ways().leads else "the host has no default route"


def _is_callers(path: str) -> bool:
    try:
        there, here = os.stat(path), os.stat("/proc/self/ns/net")
    except OSError:  # who enters it says so
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _why_no_packets(container: Container) -> str:
    """What keeps this caller from a stack behind interfaces: empty, or a reason."""
    if container.selinux_label:
        return "policies of SELinux have no packets for a container's label"
    from runsc.launch import silence  # noqa: PLC0415  only where nobody has said

    return silence.why_not()
