"""What can be set: by sysctls for a network namespace, by options of its socket for one of them."""

from __future__ import annotations

from collections import Counter
from typing import Final

from msgspec import Struct, field

from sentry.net.tcp.challenges import Challenges
from sentry.net.tcp.keyed import Keyed

SECOND: Final = 1_000_000_000
MS: Final = 1_000_000


class Settings(Struct):
    """net.ipv4.tcp_* and net.core.somaxconn, with the names, units and defaults of Linux.

    Documentation/networking/ip-sysctl.rst.
    """

    tcp_rmem: tuple[int, int, int] = (4096, 131072, 6291456)
    tcp_wmem: tuple[int, int, int] = (4096, 16384, 4194304)
    tcp_moderate_rcvbuf: int = 1
    tcp_adv_win_scale: int = 1
    tcp_syn_retries: int = 6
    tcp_synack_retries: int = 5
    tcp_syn_linear_timeouts: int = 4
    tcp_retries2: int = 15
    tcp_orphan_retries: int = 0
    tcp_keepalive_time: int = 7200
    tcp_keepalive_intvl: int = 75
    tcp_keepalive_probes: int = 9
    tcp_fin_timeout: int = 60
    tcp_timestamps: int = 1
    tcp_sack: int = 1
    tcp_dsack: int = 1
    tcp_window_scaling: int = 1
    tcp_ecn: int = 2
    tcp_ecn_fallback: int = 1
    tcp_syncookies: int = 1
    tcp_max_syn_backlog: int = 1024
    somaxconn: int = 4096
    tcp_abort_on_overflow: int = 0
    tcp_max_tw_buckets: int = 16384
    tcp_max_orphans: int = 4096
    tcp_tw_reuse: int = 2
    tcp_rfc1337: int = 0
    tcp_challenge_ack_limit: int = 0x7FFFFFFF
    tcp_invalid_ratelimit: int = 500
    tcp_rto_min_us: int = 200_000
    tcp_rto_max_ms: int = 120_000
    tcp_early_retrans: int = 3
    tcp_reordering: int = 3
    tcp_min_snd_mss: int = 48
    advmss: int = 0xFFFF
    """No larger segments are asked for, whatever the MTU is: RTAX_ADVMSS of a route."""
    tcp_slow_start_after_idle: int = 1
    tcp_congestion_control: str = "cubic"
    tcp_notsent_lowat: int = 0xFFFFFFFF


class Tuning(Struct):
    """Options of one socket, as setsockopt(2) sets them; 0 where the settings above decide."""

    nodelay: bool = False
    cork: bool = False
    keepalive: bool = False
    keepalive_time: int = 0
    keepalive_intvl: int = 0
    keepalive_probes: int = 0
    """Seconds, seconds, a number."""
    user_timeout_ms: int = 0
    syn_retries: int = 0
    linger2: int = 0
    """Seconds; below 0: no FIN_WAIT2 without a socket."""
    maxseg: int = 0
    window_clamp: int = 0
    notsent_lowat: int = 0
    oob_inline: bool = False
    rcvlowat: int = 1
    rcvbuf: int = 0
    sndbuf: int = 0
    """What SO_RCVBUF and SO_SNDBUF have made of it; it does not grow then."""
    congestion: str = ""


class Shared(Struct):
    """What the connections of a network namespace share."""

    settings: Settings
    keyed: Keyed
    challenges: Challenges = field(default_factory=Challenges)
    counters: Counter[str] = field(default_factory=Counter)
    """As in /proc/net/snmp and netstat: "Tcp.OutRsts", "TcpExt.TCPTimeouts"."""
    is_pressed: bool = False
    """Buffers do not grow any more: net.ipv4.tcp_mem."""
