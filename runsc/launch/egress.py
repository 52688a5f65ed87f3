"""--egress and its annotation: a policy for what leaves a container's network, read and checked.

What it says: sentry.net.egress. Only a stack of the sandbox's own is judged by one, so a container
whose sockets are the host's does not start with it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.options import Globals
from sentry.config import EgressConfig
from sentry.net.egress.rules import MAX_BYTES, PolicyError, brokers, parse

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.launch.boot import Terms

ANNOTATION: Final = "dev.runsc.egress"
_OF_HOST: Final = (
    "an egress policy wants --network=sandbox: with sockets of the host nobody judges what leaves"
)


def asked_for(
    flags: Globals, annotations: dict[str, str], network: str
) -> EgressConfig | None:
    """The policy; the flag, which is the operator's, counts more than the annotation.

    Raises: RuntimeFailure.
    """
    path = flags.egress or annotations.get(ANNOTATION)
    if path is None:
        return None
    config = read(path)
    if network == "host":
        raise RuntimeFailure(_OF_HOST)
    return config if network == "sandbox" else None


def check_joined(container_id: str, sandbox: State) -> None:
    """A container with a policy joins a sandbox, whose policy counts. Raises: RuntimeFailure."""
    if sandbox.network != "none" and not sandbox.judged:
        raise RuntimeFailure(
            f'"{container_id}" has an egress policy, but the sandbox "{sandbox.id}", which it'
            " joins, was started without one"
        )


def read(path: str) -> EgressConfig:
    """A policy from a file. Raises: RuntimeFailure."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
        parse(text, path)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise RuntimeFailure(f"{path}: not UTF-8") from None
    except PolicyError as error:
        from runsc.launch.toml_places import placed  # noqa: PLC0415  only for a mistake

        what = str(error).removeprefix(f"{path}: ")
        raise RuntimeFailure(f"{path}: {placed(text, what)}") from None
    return EgressConfig(text, host_addresses())


def sockets_of(config: EgressConfig) -> tuple[str, ...]:
    """Those of a policy's brokers."""
    return brokers(parse(config.policy, ""))


def with_dialer(
    config: EgressConfig, container_id: str, flags: Globals, terms: Terms, log_fd: int
) -> tuple[EgressConfig, int]:
    """The same with the way to a dialer, which is the caller's to close, and its pid; if the policy
    has no brokers as it was, and 0. Raises: OSError, RuntimeFailure."""
    sockets = sockets_of(config)
    if not sockets:
        return config, 0
    from runsc.launch import dialer  # noqa: PLC0415  few have one

    dialing = dialer.Dialing(container_id, sockets, log_fd)
    fd, pid = dialer.start(dialing, flags.switches, terms)
    return msgspec.structs.replace(config, dialer_fd=fd), pid


@contextmanager
def way_to_brokers(
    flags: Globals, config: EgressConfig, store: Store, state: State
) -> Iterator[tuple[int, ...]]:
    """What goes with another policy for a sandbox that runs: the way to a dialer, if it has
    brokers, which are noted. Behind it the way is the Sentry's alone, and with the last one the
    dialer ends.

    Raises: OSError, RuntimeFailure.
    """
    sockets = sockets_of(config)
    if not sockets:
        yield ()
        return
    from runsc.cgroups.recorded import of  # noqa: PLC0415  few need all that
    from runsc.launch import boot, configure, label  # noqa: PLC0415

    owner = store.load(state.sandbox) if state.sandbox else state
    joins = of(owner.cgroups).open_joins() if owner.cgroups.directories else ()
    log_fd = configure.log_fd(flags, detached=True)
    try:
        terms = boot.Terms(outlives=True, joins=joins, label=label.of_bundle(owner.bundle))
        made, _ = with_dialer(config, owner.id, flags, terms, log_fd)
    finally:
        for fd in (*joins, log_fd):
            os.close(fd)
    try:
        with store.held(owner.id) as noted:
            noted.brokers = tuple(dict.fromkeys((*noted.brokers, *sockets)))
            store.save(noted)
        yield (made.dialer_fd,)
    finally:
        os.close(made.dialer_fd)


def host_addresses() -> tuple[str, ...]:
    """Those of this network namespace: proc_net(5), net/ipv4/fib_trie.c, net/ipv6/addrconf.c."""
    found = []
    with open("/proc/net/fib_trie", encoding="ascii") as file:
        prefix = ""
        for line in file:
            words = line.split()
            if words[:1] == ["|--"]:
                prefix = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"]:
                found.append(prefix)
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            found += [str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in file]
    except FileNotFoundError:  # a kernel without IPv6
        pass
    return tuple(dict.fromkeys(found))
