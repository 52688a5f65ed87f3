"""Whether a container can have a network of the sandbox's own."""

from __future__ import annotations

from runsc.checks.findings import Finding, good, note
from runsc.checks.tried import Failed, tried
from runsc.launch import isolation, packet_sockets, silence
from runsc.launch.network_choice import why_no_passt


def network() -> Finding:
    """By interfaces of the host's, or, for an ordinary user, by passt(1)."""
    if not isolation.is_privileged():
        why = why_no_passt()
        if why:
            return note("network", f"a loopback interface alone: {why}", "install passt")
        return good("network", "a stack of the sandbox's own, over passt")
    why = silence.why_not()
    if not why:
        try:
            tried(_plugged, isolation.NAMESPACES)
        except Failed as error:
            why = str(error)
    if not why:
        return good("network", "a stack of the sandbox's own")
    return note(
        "network", f"sockets of the host, not a stack of the sandbox's own: {why}",
        "nftables in the kernel (NF_TABLES_INET), and the rights CAP_NET_ADMIN and CAP_NET_RAW",
    )  # fmt: skip


def _plugged() -> str:
    silence.silence().close()
    for each in packet_sockets.make():
        each.close()
    return ""
