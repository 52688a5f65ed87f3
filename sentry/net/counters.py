"""/proc/net/snmp, snmp6 and netstat: what protocols count. RFC 1213, proc_net(5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sentry.net.sysctls import forwards

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
EXTENDED: Final = {
    "TcpExt": (
        "SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned "
        "OfoPruned OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive "
        "PAWSEstab PAWSOldAck DelayedACKs DelayedACKLocked DelayedACKLost ListenOverflows "
        "ListenDrops TCPHPHits TCPPureAcks TCPHPAcks TCPRenoRecovery TCPSackRecovery "
        "TCPSACKReneging TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo TCPPartialUndo "
        "TCPDSACKUndo TCPLossUndo TCPLostRetransmit TCPRenoFailures TCPSackFailures "
        "TCPLossFailures TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPLossProbes "
        "TCPLossProbeRecovery TCPRenoRecoveryFail TCPSackRecoveryFail TCPRcvCollapsed "
        "TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv "
        "TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger "
        "TCPAbortFailed TCPMemoryPressures TCPMemoryPressuresChrono TCPSACKDiscard "
        "TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPSpuriousRTOs TCPMD5NotFound "
        "TCPMD5Unexpected TCPMD5Failure TCPSackShifted TCPSackMerged TCPSackShiftFallback "
        "TCPBacklogDrop PFMemallocDrop TCPMinTTLDrop TCPDeferAcceptDrop IPReversePathFilter "
        "TCPTimeWaitOverflow TCPReqQFullDoCookies TCPReqQFullDrop TCPRetransFail TCPRcvCoalesce "
        "TCPOFOQueue TCPOFODrop TCPOFOMerge TCPChallengeACK TCPSYNChallenge TCPFastOpenActive "
        "TCPFastOpenActiveFail TCPFastOpenPassive TCPFastOpenPassiveFail "
        "TCPFastOpenListenOverflow TCPFastOpenCookieReqd TCPFastOpenBlackhole "
        "TCPSpuriousRtxHostQueues BusyPollRxPackets TCPAutoCorking TCPFromZeroWindowAdv "
        "TCPToZeroWindowAdv TCPWantZeroWindowAdv TCPSynRetrans TCPOrigDataSent "
        "TCPHystartTrainDetect TCPHystartTrainCwnd TCPHystartDelayDetect TCPHystartDelayCwnd "
        "TCPACKSkippedSynRecv TCPACKSkippedPAWS TCPACKSkippedSeq TCPACKSkippedFinWait2 "
        "TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPWinProbe TCPKeepAlive TCPMTUPFail "
        "TCPMTUPSuccess TCPDelivered TCPDeliveredCE TCPAckCompressed TCPZeroWindowDrop "
        "TCPRcvQDrop TCPWqueueTooBig TCPFastOpenPassiveAltKey TcpTimeoutRehash "
        "TcpDuplicateDataRehash TCPDSACKRecvSegs TCPDSACKIgnoredDubious TCPMigrateReqSuccess "
        "TCPMigrateReqFailure TCPPLBRehash TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAOGood "
        "TCPAODroppedIcmps"
    ),
    "IpExt": (
        "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets "
        "OutOctets InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors "
        "InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps"
    ),
}
"""What Linux 6.12 tells in /proc/net/netstat."""
FIXED: Final = {
    "Ip.DefaultTTL": 64, "Tcp.RtoAlgorithm": 1, "Tcp.RtoMin": 200,
    "Tcp.RtoMax": 120000, "Tcp.MaxConn": -1,
}  # fmt: skip
FIELDS6: Final = (
    "Ip6InReceives Ip6InHdrErrors Ip6InTooBigErrors Ip6InNoRoutes Ip6InAddrErrors "
    "Ip6InUnknownProtos Ip6InTruncatedPkts Ip6InDiscards Ip6InDelivers Ip6OutForwDatagrams "
    "Ip6OutRequests Ip6OutDiscards Ip6OutNoRoutes Ip6InOctets Ip6OutOctets "
    "Icmp6InMsgs Icmp6InErrors Icmp6OutMsgs Icmp6OutErrors Udp6InDatagrams Udp6NoPorts "
    "Udp6InErrors Udp6OutDatagrams Udp6RcvbufErrors Udp6SndbufErrors "
    "Udp6InCsumErrors Udp6IgnoredMulti Udp6MemErrors"
)


def snmp(stack: Stack) -> Iterator[str]:
    """/proc/net/snmp."""
    yield _two_lines(stack, FIELDS)


def netstat(stack: Stack) -> Iterator[str]:
    """/proc/net/netstat."""
    yield _two_lines(stack, EXTENDED)


def _two_lines(stack: Stack, fields: dict[str, str]) -> str:
    """The names of each protocol, then their values."""
    counters = stack.counters
    counters["Ip.Forwarding"] = 1 if forwards(stack) else 2
    lines = []
    for protocol, names in fields.items():
        values = [
            str(FIXED.get(f"{protocol}.{name}", counters[f"{protocol}.{name}"]))
            for name in names.split()
        ]
        lines.append(f"{protocol}: {names}\n{protocol}: {' '.join(values)}\n")
    return "".join(lines)


def snmp6(stack: Stack) -> Iterator[str]:
    """/proc/net/snmp6."""
    yield "".join(f"{name:<32}\t{stack.counters[name]}\n" for name in FIELDS6.split())
