"""What can be set: by sysctls for a network namespace, by options of its socket for one of them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from sentry.net.tcp.challenges import Challenges
from sentry.net.tcp.keyed import Keyed

SECOND: Final = 1_000_000_000
MS: Final = 1_000_000


class Settings:
    """net.ipv4.tcp_* and net.core.somaxconn, with the names, units and defaults of Linux.

    Documentation/networking/ip-sysctl.rst.
    """

    __slots__ = (
        "advmss", "somaxconn", "tcp_abort_on_overflow", "tcp_adv_win_scale",
        "tcp_challenge_ack_limit", "tcp_congestion_control", "tcp_dsack", "tcp_early_retrans",
        "tcp_ecn", "tcp_ecn_fallback", "tcp_fin_timeout", "tcp_invalid_ratelimit",
        "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_keepalive_time", "tcp_max_orphans",
        "tcp_max_syn_backlog", "tcp_max_tw_buckets", "tcp_min_snd_mss", "tcp_moderate_rcvbuf",
        "tcp_notsent_lowat", "tcp_orphan_retries", "tcp_reordering", "tcp_retries2", "tcp_rfc1337",
        "tcp_rmem", "tcp_rto_max_ms", "tcp_rto_min_us", "tcp_sack", "tcp_slow_start_after_idle",
        "tcp_syn_linear_timeouts", "tcp_syn_retries", "tcp_synack_retries", "tcp_syncookies",
        "tcp_timestamps", "tcp_tw_reuse", "tcp_window_scaling", "tcp_wmem",
    )  # fmt: skip

    def __init__(self, **given: Any) -> None:
        """`given`: what differs. Raises: TypeError."""
        self.tcp_rmem: tuple[int, int, int] = (4096, 131072, 6291456)
        self.tcp_wmem: tuple[int, int, int] = (4096, 16384, 4194304)
        self.tcp_moderate_rcvbuf = 1
        self.tcp_adv_win_scale = 1
        self.tcp_syn_retries = 6
        self.tcp_synack_retries = 5
        self.tcp_syn_linear_timeouts = 4
        self.tcp_retries2 = 15
        self.tcp_orphan_retries = 0
        self.tcp_keepalive_time = 7200
        self.tcp_keepalive_intvl = 75
        self.tcp_keepalive_probes = 9
        self.tcp_fin_timeout = 60
        self.tcp_timestamps = 1
        self.tcp_sack = 1
        self.tcp_dsack = 1
        self.tcp_window_scaling = 1
        self.tcp_ecn = 2
        self.tcp_ecn_fallback = 1
        self.tcp_syncookies = 1
        self.tcp_max_syn_backlog = 1024
        self.somaxconn = 4096
        self.tcp_abort_on_overflow = 0
        self.tcp_max_tw_buckets = 16384
        self.tcp_max_orphans = 4096
        self.tcp_tw_reuse = 2
        self.tcp_rfc1337 = 0
        self.tcp_challenge_ack_limit = 0x7FFFFFFF
        self.tcp_invalid_ratelimit = 500
        self.tcp_rto_min_us = 200_000
        self.tcp_rto_max_ms = 120_000
        self.tcp_early_retrans = 3
        self.tcp_reordering = 3
        self.tcp_min_snd_mss = 48
        self.advmss = 0xFFFF
        """No larger segments are asked for, whatever the MTU is: RTAX_ADVMSS of a route."""
        self.tcp_slow_start_after_idle = 1
        self.tcp_congestion_control = "cubic"
        self.tcp_notsent_lowat = 0xFFFFFFFF
        _take(self, given)


TUNED: Final = (
    "congestion", "cork", "keepalive", "keepalive_intvl", "keepalive_probes", "keepalive_time",
    "linger2", "maxseg", "nodelay", "notsent_lowat", "oob_inline", "rcvbuf", "rcvlowat",
    "sndbuf", "syn_retries", "user_timeout_ms", "window_clamp",
)  # fmt: skip


class Tuning:
    """Options of one socket, as setsockopt(2) sets them; 0 where the settings above decide."""

    __slots__ = TUNED

    def __init__(self, **given: Any) -> None:
        """`given`: what differs. Raises: TypeError."""
        self.nodelay = False
        self.cork = False
        self.keepalive = False
        self.keepalive_time = 0
        self.keepalive_intvl = 0
        self.keepalive_probes = 0
        """Seconds, seconds, a number."""
        self.user_timeout_ms = 0
        self.syn_retries = 0
        self.linger2 = 0
        """Seconds; below 0: no FIN_WAIT2 without a socket."""
        self.maxseg = 0
        self.window_clamp = 0
        self.notsent_lowat = 0
        self.oob_inline = False
        self.rcvlowat = 1
        self.rcvbuf = 0
        self.sndbuf = 0
        """What SO_RCVBUF and SO_SNDBUF have made of it; it does not grow then."""
        self.congestion = ""
        _take(self, given)

    def copy(self) -> Tuning:
        """The same for another socket."""
        new = Tuning()
        new.nodelay, new.cork = self.nodelay, self.cork
        new.keepalive, new.keepalive_time = self.keepalive, self.keepalive_time
        new.keepalive_intvl, new.keepalive_probes = self.keepalive_intvl, self.keepalive_probes
        new.user_timeout_ms, new.syn_retries = self.user_timeout_ms, self.syn_retries
        new.linger2, new.maxseg = self.linger2, self.maxseg
        new.window_clamp, new.notsent_lowat = self.window_clamp, self.notsent_lowat
        new.oob_inline, new.rcvlowat = self.oob_inline, self.rcvlowat
        new.rcvbuf, new.sndbuf = self.rcvbuf, self.sndbuf
        new.congestion = self.congestion
        return new


class Shared:
    """What the connections of a network namespace share."""

    __slots__ = ("challenges", "counters", "is_pressed", "keyed", "settings")

    def __init__(
        self, settings: Settings, keyed: Keyed, counters: Counter[str] | None = None
    ) -> None:
        """`counters`: as in /proc/net/snmp and netstat: "Tcp.OutRsts", "TcpExt.TCPTimeouts"."""
        self.settings = settings
        self.keyed = keyed
        self.challenges = Challenges()
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.is_pressed = False
        """Buffers do not grow any more: net.ipv4.tcp_mem."""


def _take(into: Settings | Tuning, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if not hasattr(into, name):
            raise TypeError(name)
        setattr(into, name, value)
