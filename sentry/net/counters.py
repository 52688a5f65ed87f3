"""/proc/net/snmp and snmp6: what protocols count. RFC 1213, proc_net(5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.net.stack import Stack

FIELDS: Final = {
    "Ip": (
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos "
        "InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds "
        "ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits"
    ),
    "Icmp": (
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs "
        "InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps "
        "OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds "
        "OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps "
        "OutTimestampReps OutAddrMasks OutAddrMaskReps"
    ),
    "Tcp": (
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets "
        "CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors"
    ),
    "Udp": (
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors "
        "IgnoredMulti MemErrors"
    ),
    "UdpLite": (
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors "
        "IgnoredMulti MemErrors"
    ),
}
FIXED: Final = {
    "Ip.Forwarding": 2, "Ip.DefaultTTL": 64, "Tcp.RtoAlgorithm": 1, "Tcp.RtoMin": 200,
    "Tcp.RtoMax": 120000, "Tcp.MaxConn": -1,
}  # fmt: skip
FIELDS6: Final = (
    "Ip6InReceives Ip6InHdrErrors Ip6InTooBigErrors Ip6InNoRoutes Ip6InAddrErrors "
    "Ip6InUnknownProtos Ip6InTruncatedPkts Ip6InDiscards Ip6InDelivers Ip6OutForwDatagrams "
    "Ip6OutRequests Ip6OutDiscards Ip6OutNoRoutes Icmp6InMsgs Icmp6InErrors Icmp6OutMsgs "
    "Icmp6OutErrors Udp6InDatagrams Udp6NoPorts Udp6InErrors Udp6OutDatagrams Udp6RcvbufErrors "
    "Udp6SndbufErrors Udp6InCsumErrors Udp6IgnoredMulti Udp6MemErrors"
)


def snmp(stack: Stack) -> str:
    """/proc/net/snmp."""
    counters = stack.counters
    lines = []
    for protocol, names in FIELDS.items():
        values = [
            str(FIXED.get(f"{protocol}.{name}", counters[f"{protocol}.{name}"]))
            for name in names.split()
        ]
        lines.append(f"{protocol}: {names}\n{protocol}: {' '.join(values)}\n")
    return "".join(lines)


def snmp6(stack: Stack) -> str:
    """/proc/net/snmp6."""
    return "".join(f"{name:<32}\t{stack.counters[name]}\n" for name in FIELDS6.split())
