"""Options of IPPROTO_TCP and struct tcp_info: tcp(7), do_tcp_setsockopt()."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import BPF_TCP_CLOSE as TCP_CLOSE
from sentry.abi.socket import BPF_TCP_LISTEN as TCP_LISTEN
from sentry.abi.socket import IPPROTO_TCP, SOMAXCONN, TcpInfoData
from sentry.errors import EINVAL, ENOENT, ENOPROTOOPT, EPERM, Errno
from sentry.net.inet.ip_options import IP_STREAM
from sentry.net.inet.ipv6_options import IPV6_STREAM
from sentry.net.options import (
    INT,
    SWITCH,
    Check,
    Getter,
    Option,
    Options,
    Setter,
    Within,
    anything,
    flag,
    show_nothing,
    take,
    tells,
)
from sentry.net.socket_options import SOCKET
from sentry.net.sysctls import tcp_number

if TYPE_CHECKING:
    from sentry.net.inet.tcp_stream import TcpStream
    from sentry.vfs.file import Caller

MSS: Final = 32741
ADVERTISED_MSS: Final = 65483
MSS_UNCONNECTED: Final = 536
MAX_LINGER2: Final = 120
MIN_WINDOW: Final = 1152
MAX_RETRY_SECONDS: Final = 120
MAX_RETRIES: Final = 255
CONGESTION: Final = b"cubic"
CONGESTIONS: Final = (CONGESTION, b"reno")


class TcpOptions:
    """The options of one socket."""

    __slots__ = ("congestion", "values")

    def __init__(
        self, values: dict[int, int] | None = None, congestion: bytes = CONGESTION
    ) -> None:
        self.values = dict(DEFAULTS if values is None else values)
        self.congestion = congestion

    def inherited(self) -> TcpOptions:
        """Those of a connection that a listener accepts."""
        return TcpOptions(self.values, self.congestion)


TCP: Final = Options(IPPROTO_TCP, abi, IP_STREAM, IPV6_STREAM, SOCKET)
DEFAULTS: Final[dict[int, int]] = {}
"""Of the options that are numbers."""


# --- what becomes of a number


def _linger(number: int) -> int:
    return -1 if number < 0 else min(number, MAX_LINGER2)


def _segment(number: int) -> int:
    return Within(88, 32767)(number) if number else 0


def _window(number: int) -> int:
    return max(number, MIN_WINDOW) if number else 0


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


def _refused(error: type[Errno]) -> Check:
    """What is not there."""

    def check(number: int) -> int:
        raise error("TCP option")

    return check


# --- getters and setters


def _get_number(row: Option, sock: TcpStream, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.tcp.values[row.number])


def _get_setting(row: Option, sock: TcpStream, caller: Caller, size: int) -> bytes:
    return INT.pack(setting(sock, row.name))


def setting(sock: TcpStream, name: str) -> int:
    """An option that is as a sysctl says where it was not set."""
    found = sock.tcp.values[getattr(abi, name)]
    return found or min(max(tcp_number(sock.stack, *SETTINGS[name]), 0), (1 << 31) - 1)


def _set_number(row: Option, sock: TcpStream, caller: Caller, value: bytes) -> None:
    sock.tcp.values[row.number] = row.number_in(value)


def _set_cork(row: Option, sock: TcpStream, caller: Caller, value: bytes) -> None:
    """TCP_CORK, TCP_NODELAY."""
    _set_number(row, sock, caller, value)
    if not sock.tcp.values[abi.TCP_CORK]:
        sock.uncork()


def _set_window(row: Option, sock: TcpStream, caller: Caller, value: bytes) -> None:
    number = row.number_in(value)
    if not number and sock.state != TCP_CLOSE:
        raise EINVAL("connected")
    sock.tcp.values[row.number] = number


def _get_segment(row: Option, sock: TcpStream, caller: Caller, size: int) -> bytes:
    if sock.engine is not None and sock.engine.is_open:
        return INT.pack(sock.engine.connection.mss)
    if sock.state not in (TCP_CLOSE, TCP_LISTEN):
        return INT.pack(MSS)
    return INT.pack(sock.tcp.values[row.number] or MSS_UNCONNECTED)


def _set_congestion(row: Option, sock: TcpStream, caller: Caller, value: bytes) -> None:
    if not value:
        raise EINVAL("no name")
    name = value[:15].split(b"\0", 1)[0]
    if name not in CONGESTIONS:
        raise ENOENT("congestion control")
    sock.tcp.congestion = name


def _set_upper_layer(row: Option, sock: TcpStream, caller: Caller, value: bytes) -> None:
    raise (ENOENT if value else EINVAL)("no upper layer protocol")


def _no_repair(row: Option, sock: TcpStream, caller: Caller, size: int) -> bytes:
    raise EINVAL("no repair")


# --- the rows


def _number(
    name: str,
    default: int = 0,
    check: Check = anything,
    setter: Setter = _set_number,
    getter: Getter = _get_number,
    partial: str = "",
) -> None:
    row = TCP.row(name, getter, setter, check=check, default=default, partial=partial)
    DEFAULTS[row.number] = default


SETTINGS: Final = {
    "TCP_KEEPIDLE": ("tcp_keepalive_time", 7200), "TCP_KEEPINTVL": ("tcp_keepalive_intvl", 75),
    "TCP_KEEPCNT": ("tcp_keepalive_probes", 9), "TCP_SYNCNT": ("tcp_syn_retries", 6),
    "TCP_LINGER2": ("tcp_fin_timeout", 60),
}  # fmt: skip
"""The sysctls, and what these are first. Of such an option 0 is that it was not set."""
POSITIVE: Final = Within(0, (1 << 31) - 1)
_number("TCP_NODELAY", 0, flag, _set_cork)
_number("TCP_CORK", 0, flag, _set_cork)
_number("TCP_MAXSEG", 0, _segment, getter=_get_segment,
        partial="within the sandbox there are no segments")  # fmt: skip
for _name, _most in (("TCP_KEEPIDLE", 32767), ("TCP_KEEPINTVL", 32767), ("TCP_KEEPCNT", 127)):
    _number(_name, 0, Within(1, _most), getter=_get_setting,
            partial="within the sandbox a peer is never lost")  # fmt: skip
_number("TCP_SYNCNT", 0, Within(1, 127), getter=_get_setting,
        partial="within the sandbox no SYN is lost")  # fmt: skip
_number("TCP_LINGER2", 0, _linger, getter=_get_setting)
_number("TCP_DEFER_ACCEPT", 0, _whole_retries)
_number("TCP_WINDOW_CLAMP", 0, _window, _set_window,
        partial="within the sandbox the queue is the window")  # fmt: skip
_number("TCP_QUICKACK", 1, flag, partial="within the sandbox there are no acknowledgements")
_number("TCP_USER_TIMEOUT", 0, POSITIVE, partial="within the sandbox nothing stays unacknowledged")
_number("TCP_FASTOPEN", 0, lambda number: min(POSITIVE(number), SOMAXCONN),
        partial="kept: data never comes with a SYN")  # fmt: skip
_number("TCP_FASTOPEN_CONNECT", 0, SWITCH, partial="kept: data never goes with a SYN")
_number("TCP_FASTOPEN_NO_COOKIE", 0, SWITCH, partial="kept: data never goes with a SYN")
_number("TCP_NOTSENT_LOWAT", partial="within the sandbox what is sent is received")
_number("TCP_THIN_LINEAR_TIMEOUTS", 0, SWITCH, partial="kept alone")
_number("TCP_THIN_DUPACK", 0, lambda number: SWITCH(number) * 0)
_number("TCP_INQ", 0, SWITCH)
_number("TCP_SAVE_SYN", 0, Within(0, 2), partial="kept: no SYN is saved")
_number("TCP_TX_DELAY", 0, POSITIVE, partial="kept: nothing is delayed")
_number("TCP_TIMESTAMP", 0, _refused(EPERM), partial="only read: no repair mode")
_number("TCP_REPAIR", 0, _refused(EPERM), partial="no repair mode: EPERM")
_number("TCP_IS_MPTCP", 0, _refused(ENOPROTOOPT))
TCP.row("TCP_REPAIR_QUEUE", _no_repair, take, check=_refused(EPERM), partial="no repair mode")
TCP.row("TCP_REPAIR_WINDOW", _no_repair, take, check=_refused(EPERM), partial="no repair mode")
TCP.row("TCP_QUEUE_SEQ", _no_repair, take, check=_refused(EINVAL), partial="no repair mode")
TCP.row("TCP_REPAIR_OPTIONS", None, take, check=_refused(EINVAL), partial="no repair mode")
TCP.row("TCP_CONGESTION", tells(lambda sock: sock.tcp.congestion.ljust(16, b"\0")),
        _set_congestion, partial="cubic and reno, within the sandbox in name")  # fmt: skip
TCP.row("TCP_ULP", show_nothing, _set_upper_layer, partial="there is none")
TCP.row("TCP_INFO", tells(lambda sock: sock.info()),
        partial="within the sandbox times and windows are constants")  # fmt: skip
TCP.row("TCP_CC_INFO", show_nothing)
TCP.row("TCP_SAVED_SYN", show_nothing, partial="no SYN is saved")
TCP.row("TCP_FASTOPEN_KEY", show_nothing, partial="there is none")


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


def pack_info(fields: dict[str, int]) -> bytes:
    """struct tcp_info of what the engine tells, field by field."""
    fields["tcpi_wscale"] = fields["tcpi_snd_wscale"] | fields["tcpi_rcv_wscale"] << 4
    fields["tcpi_flags"] = fields["tcpi_delivery_rate_app_limited"]
    return INFO.pack(*(fields[name] for name in INFO_FIELDS))
