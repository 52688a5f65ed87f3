"""What is agreed on in a handshake, and a SYN that was answered: struct request_sock."""

from __future__ import annotations

from msgspec import Struct

from sentry.net.tcp.keyed import Flow
from sentry.net.tcp.segment import ACK, CWR, ECE, SYN, Arrived, Outgoing, header, syn_options
from sentry.net.tcp.settings import MS, Settings

MASK = 0xFFFFFFFF
MAX_WINDOW = 65535


class Agreed(Struct):
    """What both ends can: RFC 7323, 2018, 3168."""

    mss: int = 0
    """Of the other end; 0: it did not say."""
    snd_scale: int | None = None
    """Of the windows that it tells; None: neither end scales."""
    has_sack: bool = False
    stamp: int | None = None
    """Its last TSval; None: neither end sends any."""
    has_ecn: bool = False


class Request(Struct):
    """A SYN that came, and what was answered."""

    flow: Flow
    iss: int
    irs: int
    agreed: Agreed
    advmss: int
    window: int
    rcv_scale: int
    ts_offset: int
    sent_ns: int
    """When the answer was sent first."""
    sent: int = 1
    acked: bool = False
    """It was acknowledged, and there was no room to accept it."""

    def answer(self, now_ns: int) -> Outgoing:
        """The SYN and ACK."""
        agreed = self.agreed
        stamps = None
        if agreed.stamp is not None:
            stamps = ((now_ns // MS + self.ts_offset) & MASK, agreed.stamp)
        options = syn_options(
            self.advmss,
            None if agreed.snd_scale is None else self.rcv_scale,
            agreed.has_sack,
            stamps,
        )
        flags = SYN | ACK | (ECE if agreed.has_ecn else 0)
        ports = self.flow.local.port, self.flow.remote.port
        return Outgoing(header(ports, self.iss, self.irs + 1, flags, self.window, options))


def agreed_on(seg: Arrived, settings: Settings) -> Agreed:
    """What a SYN offers and the settings allow."""
    wants_ecn = seg.flags & (ECE | CWR) == ECE | CWR
    return Agreed(
        mss=seg.mss,
        snd_scale=seg.window_scale if settings.tcp_window_scaling else None,
        has_sack=bool(seg.sack_permitted and settings.tcp_sack),
        stamp=seg.stamps[0] if seg.stamps is not None and settings.tcp_timestamps else None,
        has_ecn=bool(wants_ecn and settings.tcp_ecn in (1, 2)),
    )
