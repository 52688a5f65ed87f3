"""What sysctls and socket options say to the engine of TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import SO_KEEPALIVE, SO_OOBINLINE, SO_RCVLOWAT
from sentry.net.inet.tcp_options import CONGESTION
from sentry.net.tcp.settings import Settings, Tuning
from sentry.platform.constants import PAGE_SIZE

if TYPE_CHECKING:
    from sentry.net.inet.tcp_listener import TcpListener

NUMBERS: Final = (
    "tcp_abort_on_overflow", "tcp_dsack", "tcp_ecn", "tcp_ecn_fallback", "tcp_fin_timeout",
    "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_keepalive_time", "tcp_max_syn_backlog",
    "tcp_max_tw_buckets", "tcp_moderate_rcvbuf", "tcp_notsent_lowat", "tcp_orphan_retries",
    "tcp_retries2", "tcp_rfc1337", "tcp_sack", "tcp_slow_start_after_idle", "tcp_syn_retries",
    "tcp_synack_retries", "tcp_syncookies", "tcp_timestamps", "tcp_tw_reuse",
    "tcp_window_scaling",
)  # fmt: skip
"""Those of Settings that /proc/sys/net/ipv4 has."""
SIZES: Final = ("tcp_rmem", "tcp_wmem")
LEAST_BUFFER: Final = 4096
MEMORY: Final = (94053, 125405, 188106)
"""net.ipv4.tcp_mem, in pages: as /proc/sys shows it."""
LARGEST: Final = (1 << 31) - 1
MOST: Final = {"tcp_notsent_lowat": 0xFFFFFFFF, "tcp_orphan_retries": 0xFF}
"""Of those that are no int."""
MOST_BUCKETS: Final = 16384
"""Of net.ipv4.tcp_max_tw_buckets: a ceiling of ours."""
MOST_BUFFER: Final = 1 << 25
"""Of what tcp_rmem and tcp_wmem let buffers grow to: a ceiling of ours."""
DEFAULT_SETTINGS: Final = Settings(tcp_max_syn_backlog=512, tcp_max_tw_buckets=8192)
"""What /proc/sys/net/ipv4 shows where nothing was written."""


def read_settings(settings: Settings, sysctls: dict[str, str]) -> None:
    """What stands in /proc/sys/net/ipv4 now. `sysctls`: what was written there, as text."""
    for name in NUMBERS:
        text = sysctls.get(f"net/ipv4/{name}")
        number = getattr(DEFAULT_SETTINGS, name) if text is None else int(text)
        setattr(settings, name, min(max(number, 0), MOST.get(name, LARGEST)))
    settings.tcp_max_tw_buckets = min(settings.tcp_max_tw_buckets, MOST_BUCKETS)
    for name in SIZES:
        text = sysctls.get(f"net/ipv4/{name}")
        sizes = getattr(DEFAULT_SETTINGS, name) if text is None else map(int, text.split())
        setattr(settings, name, tuple(min(max(each, LEAST_BUFFER), MOST_BUFFER) for each in sizes))
    chosen = sysctls.get("net/ipv4/tcp_congestion_control", CONGESTION.decode())
    settings.tcp_congestion_control = chosen


def memory_limits(sysctls: dict[str, str]) -> tuple[int, int]:
    """Bytes of all buffers from which on they do not grow, and from which on nothing more comes
    in: net.ipv4.tcp_mem."""
    text = sysctls.get("net/ipv4/tcp_mem")
    _, pressure, most = MEMORY if text is None else map(int, text.split())
    return max(pressure, 0) * PAGE_SIZE, max(most, 0) * PAGE_SIZE


def tune(tuning: Tuning, sock: TcpListener) -> None:
    """As the options of a socket are now; 0: sysctls decide."""
    values = sock.tcp.values
    tuning.nodelay = bool(values[abi.TCP_NODELAY])
    tuning.cork = bool(values[abi.TCP_CORK])
    tuning.keepalive = SO_KEEPALIVE in sock.options
    tuning.keepalive_time = values[abi.TCP_KEEPIDLE]
    tuning.keepalive_intvl = values[abi.TCP_KEEPINTVL]
    tuning.keepalive_probes = values[abi.TCP_KEEPCNT]
    tuning.user_timeout_ms = values[abi.TCP_USER_TIMEOUT]
    tuning.syn_retries = values[abi.TCP_SYNCNT]
    tuning.linger2 = values[abi.TCP_LINGER2]
    tuning.maxseg = values[abi.TCP_MAXSEG]
    tuning.window_clamp = values[abi.TCP_WINDOW_CLAMP]
    tuning.notsent_lowat = max(values[abi.TCP_NOTSENT_LOWAT], 0)
    tuning.oob_inline = SO_OOBINLINE in sock.options
    tuning.rcvlowat = max(1, sock.numbers[SO_RCVLOWAT])
    tuning.rcvbuf = sock.rcvbuf if sock.chose_rcvbuf else 0
    tuning.sndbuf = sock.sndbuf if sock.chose_sndbuf else 0
