"""--egress and its annotation: a policy for what leaves a container's network, read and checked.

What it says: sentry.net.egress. Only a stack of the sandbox's own is judged by one, so a container
whose sockets are the host's does not start with it.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.options import Globals
from sentry.config import EgressConfig
from sentry.net.egress.rules import MAX_BYTES, PolicyError, parse, served

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
        served(parse(text, path), path)
    except OSError as error:
        raise RuntimeFailure(f"open {path}: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise RuntimeFailure(f"{path}: not UTF-8") from None
    except PolicyError as error:
        raise RuntimeFailure(str(error)) from None
    return EgressConfig(text, host_addresses())


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
