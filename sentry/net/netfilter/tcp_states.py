"""States of a connection of TCP, as who sees its segments go by: nf_conntrack_proto_tcp.c.

Which segments belong to it is told by flags alone: windows are not followed
(net.netfilter.nf_conntrack_tcp_be_liberal is as if it were 1).
"""

from __future__ import annotations

from typing import Final

from sentry.net.tcp.segment import ACK, FIN, RST, SYN

NAMES: Final = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK",
    "TIME_WAIT", "CLOSE", "SYN_SENT2",
)  # fmt: skip
"""As /proc/net/nf_conntrack and ctnetlink number them."""
NONE, SYN_SENT, ESTABLISHED = 0, 1, 3
FIRST_OVER: Final = 7
"""From here on another connection may take its place."""
INVALID, IGNORED = -1, -2
_CODES: Final = {
    "no": 0, "ss": 1, "sr": 2, "es": 3, "fw": 4, "cw": 5, "la": 6, "tw": 7, "cl": 8, "s2": 9,
    "iv": INVALID, "ig": IGNORED,
}  # fmt: skip
NEXT: Final = {
    (kind, is_reply): tuple(_CODES[each] for each in row.split())
    for kind, is_reply, row in (
        # from:        no ss sr es fw cw la tw cl s2
        ("syn", False, "ss ss ig ig ig ig ig ss ss s2"),
        ("synack", False, "iv iv sr iv iv iv iv iv iv sr"),
        ("fin", False, "iv iv fw fw la la la tw cl iv"),
        ("ack", False, "es iv es es cw cw tw tw cl iv"),
        ("rst", False, "iv cl cl cl cl cl cl cl cl cl"),
        ("syn", True, "iv s2 iv iv iv iv iv ss iv s2"),
        ("synack", True, "iv sr ig ig ig ig ig ig ig sr"),
        ("fin", True, "iv iv fw fw la la la tw cl iv"),
        ("ack", True, "iv ig sr es cw cw tw tw cl ig"),
        ("rst", True, "iv cl cl cl cl cl cl cl cl cl"),
    )
}
"""The state after a segment, by its kind and direction, from each state."""
SETTINGS: Final = tuple(
    f"nf_conntrack_tcp_timeout_{each}"
    for each in (
        "syn_sent", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack",
        "time_wait", "close", "syn_sent",
    )
)  # fmt: skip
"""Of net.netfilter, by state: seconds until a connection in which nothing moves is forgotten."""


def kind_of(flags: int) -> str | None:
    """What a segment is to its connection; None: its flags cannot be."""
    if flags & RST:
        return None if flags & (SYN | FIN) else "rst"
    if flags & SYN:
        if flags & FIN:
            return None
        return "synack" if flags & ACK else "syn"
    if flags & FIN:
        return "fin" if flags & ACK else None
    return "ack" if flags & ACK else None
