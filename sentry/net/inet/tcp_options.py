"""Options of IPPROTO_TCP and struct tcp_info: tcp(7), do_tcp_setsockopt()."""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi import socket as abi
from sentry.abi.socket import BPF_TCP_LISTEN as TCP_LISTEN
from sentry.abi.socket import SOMAXCONN, TcpInfoData
from sentry.errors import EINVAL, ENOENT, ENOPROTOOPT, EPERM

MSS: Final = 32741
ADVERTISED_MSS: Final = 65483
MSS_UNCONNECTED: Final = 536
MAX_LINGER2: Final = 120
MIN_WINDOW: Final = 1152
MAX_RETRY_SECONDS: Final = 120
MAX_RETRIES: Final = 255
CONGESTION: Final = b"cubic"
CONGESTIONS: Final = (CONGESTION, b"reno")
DEFAULTS: Final = {
    abi.TCP_NODELAY: 0, abi.TCP_MAXSEG: 0, abi.TCP_CORK: 0, abi.TCP_KEEPIDLE: 7200,
    abi.TCP_KEEPINTVL: 75, abi.TCP_KEEPCNT: 9, abi.TCP_SYNCNT: 6, abi.TCP_LINGER2: 60,
    abi.TCP_DEFER_ACCEPT: 0, abi.TCP_WINDOW_CLAMP: 0, abi.TCP_QUICKACK: 1,
    abi.TCP_USER_TIMEOUT: 0, abi.TCP_FASTOPEN: 0, abi.TCP_FASTOPEN_CONNECT: 0,
    abi.TCP_NOTSENT_LOWAT: 0, abi.TCP_TIMESTAMP: 0, abi.TCP_THIN_LINEAR_TIMEOUTS: 0,
    abi.TCP_THIN_DUPACK: 0, abi.TCP_INQ: 0, abi.TCP_REPAIR: 0, abi.TCP_SAVE_SYN: 0,
    abi.TCP_FASTOPEN_NO_COOKIE: 0, abi.TCP_TX_DELAY: 0, abi.TCP_IS_MPTCP: 0,
}  # fmt: skip
SWITCH: Final = (0, 1)
RANGES: Final = {
    abi.TCP_KEEPIDLE: (1, 32767), abi.TCP_KEEPINTVL: (1, 32767), abi.TCP_KEEPCNT: (1, 127),
    abi.TCP_SYNCNT: (1, 127), abi.TCP_USER_TIMEOUT: (0, (1 << 31) - 1),
    abi.TCP_FASTOPEN: (0, (1 << 31) - 1), abi.TCP_THIN_LINEAR_TIMEOUTS: SWITCH,
    abi.TCP_THIN_DUPACK: SWITCH, abi.TCP_FASTOPEN_CONNECT: SWITCH, abi.TCP_INQ: SWITCH,
    abi.TCP_TX_DELAY: (0, (1 << 31) - 1), abi.TCP_SAVE_SYN: (0, 2),
    abi.TCP_FASTOPEN_NO_COOKIE: SWITCH,
}  # fmt: skip
FLAGS: Final = frozenset({abi.TCP_NODELAY, abi.TCP_CORK, abi.TCP_QUICKACK})
EMPTY: Final = frozenset({abi.TCP_CC_INFO, abi.TCP_SAVED_SYN, abi.TCP_ULP, abi.TCP_FASTOPEN_KEY})
"""Options that have nothing to tell."""
REFUSED: Final = {
    abi.TCP_REPAIR: EPERM, abi.TCP_REPAIR_QUEUE: EPERM, abi.TCP_REPAIR_WINDOW: EPERM,
    abi.TCP_QUEUE_SEQ: EINVAL, abi.TCP_REPAIR_OPTIONS: EINVAL, abi.TCP_TIMESTAMP: EPERM,
    abi.TCP_ULP: ENOENT, abi.TCP_IS_MPTCP: ENOPROTOOPT,
}  # fmt: skip
"""What is not there: repair mode, upper layer protocols."""


class TcpOptions:
    """The options of one socket."""

    __slots__ = ("congestion", "values")

    def __init__(self) -> None:
        self.values = dict(DEFAULTS)
        self.congestion = CONGESTION

    def inherited(self) -> TcpOptions:
        """Those of a connection that a listener accepts."""
        new = TcpOptions()
        new.values = dict(self.values)
        new.congestion = self.congestion
        return new

    def get(self, name: int) -> bytes:
        """getsockopt(2). Raises: ENOPROTOOPT, EINVAL."""
        if name == abi.TCP_CONGESTION:
            return self.congestion.ljust(16, b"\0")
        if name in EMPTY:
            return b""
        if name not in self.values:
            known = name in REFUSED and name != abi.TCP_REPAIR_OPTIONS
            raise EINVAL("no repair") if known else ENOPROTOOPT(f"TCP option {name}")
        value = self.values[name]
        if name == abi.TCP_MAXSEG:
            value = value or MSS_UNCONNECTED
        return struct.pack("<i", value)

    def set(self, name: int, value: bytes, *, closed: bool) -> None:
        """setsockopt(2). Raises: EINVAL, ENOENT, ENOPROTOOPT, EPERM."""
        if name == abi.TCP_CONGESTION:
            self._set_congestion(value)
            return
        if name == abi.TCP_ULP and value:
            raise ENOENT("no upper layer protocol")
        if len(value) < 4:
            raise EINVAL("int expected")
        (number,) = struct.unpack_from("<i", value)
        if (refusal := REFUSED.get(name)) is not None:
            raise refusal(f"TCP option {name}")
        if name not in self.values:
            raise ENOPROTOOPT(f"TCP option {name}")
        low, high = RANGES.get(name, (-(1 << 31), 1 << 31))
        if not low <= number <= high:
            raise EINVAL(f"TCP option {name}")
        self.values[name] = _kept(name, number, closed)

    def _set_congestion(self, value: bytes) -> None:
        if not value:
            raise EINVAL("no name")
        name = value[:15].split(b"\0", 1)[0]
        if name not in CONGESTIONS:
            raise ENOENT("congestion control")
        self.congestion = name


def _kept(name: int, number: int, closed: bool) -> int:
    """What a value becomes."""
    if name in FLAGS:
        return int(bool(number))
    if name == abi.TCP_MAXSEG and number and not 88 <= number <= 32767:
        raise EINVAL("TCP_MAXSEG")
    if name == abi.TCP_LINGER2:
        return -1 if number < 0 else min(number, MAX_LINGER2) or DEFAULTS[name]
    if name == abi.TCP_DEFER_ACCEPT:
        return _whole_retries(number)
    if name == abi.TCP_THIN_DUPACK:
        return 0
    if name == abi.TCP_FASTOPEN:
        return min(number, SOMAXCONN)
    if name == abi.TCP_WINDOW_CLAMP:
        if not number and not closed:
            raise EINVAL("connected")
        return max(number, MIN_WINDOW) if number else 0
    return number


def _whole_retries(seconds: int) -> int:
    """TCP_DEFER_ACCEPT counts retransmissions: secs_to_retrans() and back."""
    if seconds <= 0:
        return 0
    total, step = 1, 1
    for _ in range(MAX_RETRIES - 1):
        if total >= seconds:
            break
        step = min(step * 2, MAX_RETRY_SECONDS)
        total += step
    return total


INFO: Final = struct.Struct("<8B24I4Q6I4Q2I2Q6I2HI")
BITS: Final = ("tcpi_snd_wscale", "tcpi_rcv_wscale", "tcpi_delivery_rate_app_limited",
               "tcpi_fastopen_client_fail")  # fmt: skip
INFO_FIELDS: Final = (
    *TcpInfoData._fields[:6], "tcpi_wscale", "tcpi_flags",
    *(name for name in TcpInfoData._fields[6:] if name not in BITS),
)  # fmt: skip
"""struct tcp_info; two of its bytes are bit-fields."""


def info(state: int, sent: int, got: int, queues: tuple[int, int]) -> bytes:
    """struct tcp_info of a connection whose packets are never lost."""
    fields = dict.fromkeys(INFO_FIELDS, 0)
    waiting, backlog = queues
    fields.update(
        tcpi_state=state, tcpi_options=7, tcpi_wscale=7 | 7 << 4, tcpi_rto=200_000,
        tcpi_ato=40_000, tcpi_snd_mss=MSS, tcpi_rcv_mss=MSS, tcpi_pmtu=65535,
        tcpi_rcv_ssthresh=65483, tcpi_rtt=25, tcpi_rttvar=12, tcpi_snd_ssthresh=0x7FFFFFFF,
        tcpi_snd_cwnd=10, tcpi_advmss=ADVERTISED_MSS, tcpi_reordering=3, tcpi_rcv_space=65483,
        tcpi_pacing_rate=(1 << 64) - 1, tcpi_max_pacing_rate=(1 << 64) - 1,
        tcpi_bytes_acked=sent, tcpi_bytes_received=got, tcpi_bytes_sent=sent,
        tcpi_min_rtt=10, tcpi_snd_wnd=65536, tcpi_rcv_wnd=65536,
    )  # fmt: skip
    if state == TCP_LISTEN:
        fields.update(tcpi_unacked=waiting, tcpi_sacked=backlog)
    return INFO.pack(*fields.values())
