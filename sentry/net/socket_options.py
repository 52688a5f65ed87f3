"""Options of SOL_SOCKET. socket(7), sk_setsockopt(), sk_getsockopt().

sys_setsockopt() refuses values of less than an int before one of these is asked.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW
from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IFNAMSIZ,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_STREAM,
    SOF_TIMESTAMPING_MASK,
)
from sentry.errors import (
    EACCES,
    EDOM,
    EINVAL,
    ENODATA,
    ENODEV,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
)
from sentry.net.options import (
    INT,
    SWITCH,
    Check,
    Option,
    Options,
    Setter,
    Within,
    flag,
    show_default,
    shows,
    take,
    tells,
)

if TYPE_CHECKING:
    from sentry.net.socket import Socket
    from sentry.vfs.file import Caller

DEFAULT_BUFFER: Final = 212992
"""net.core.rmem_default."""
MAX_BUFFER: Final = 4194304
"""net.core.rmem_max, wmem_max."""
MAX_FORCED: Final = 16777216
"""Of SO_RCVBUFFORCE, SO_SNDBUFFORCE: a ceiling of ours."""
MIN_RCVBUF: Final = 2304
MIN_SNDBUF: Final = 4608
LONGEST_SECONDS: Final = (1 << 63) // 1000
MAX_TCP_LOWAT: Final = 3145728
"""Half of the highest value of net.ipv4.tcp_rmem."""
STAMPS: Final = frozenset(
    {
        abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMP_NEW, abi.SO_TIMESTAMPNS_NEW,
    }
)  # fmt: skip
"""Of these one at a time."""
STAMPING: Final = frozenset({abi.SO_TIMESTAMPING_OLD, abi.SO_TIMESTAMPING_NEW})
U32: Final = 0xFFFFFFFF
NOBODY: Final = struct.pack("<iII", 0, U32, U32)
"""struct ucred of a socket without a peer."""
INET: Final = (AF_INET, AF_INET6)

SOCKET: Final = Options(abi.SOL_SOCKET, abi)


def _bits(mask: int) -> Check:
    """No bits beyond those of a mask. Raises: EINVAL."""

    def check(number: int) -> int:
        if number & ~mask:
            raise EINVAL(f"{number:#x}")
        return number

    return check


def _is_admin(sock: Socket, caller: Caller) -> bool:
    return bool(caller.creds.has_in(sock.stack.owner, CAP_NET_ADMIN))


def _may_raw(sock: Socket, caller: Caller) -> bool:
    return bool(caller.creds.has_in(sock.stack.owner, CAP_NET_RAW))


# --- flags


def _get_flag(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    return INT.pack(row.number in sock.options)


def _set_flag(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if row.number_in(value):
        sock.options.add(row.number)
    else:
        sock.options.discard(row.number)


def _set_debug(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if row.number_in(value) and not _is_admin(sock, caller):
        raise EACCES(row.name)
    _set_flag(row, sock, caller, value)


def _set_reuseport(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if row.number_in(value) and sock.family not in INET:
        raise EOPNOTSUPP(row.name)
    _set_flag(row, sock, caller, value)


def _set_stamp(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.options -= STAMPS
    _set_flag(row, sock, caller, value)


def _set_zerocopy(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if sock.family not in INET or sock.protocol not in (IPPROTO_TCP, IPPROTO_UDP):
        raise EOPNOTSUPP(row.name)
    _set_flag(row, sock, caller, value)


def _lock_filter(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if row.number in sock.options and not row.number_in(value):
        raise EPERM("the filter is locked")
    _set_flag(row, sock, caller, value)


def _set_reuseaddr(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    _set_flag(row, sock, caller, value)
    sock.sharing_changed()


def _flag(name: str, setter: Setter = _set_flag, partial: str = "", check: Check = flag) -> None:
    SOCKET.row(name, _get_flag, setter, check=check, partial=partial)


_flag("SO_REUSEADDR", _set_reuseaddr)
_flag("SO_REUSEPORT", _set_reuseport)
_flag("SO_BROADCAST")
_flag("SO_OOBINLINE")
_flag("SO_PASSCRED")
_flag("SO_PASSPIDFD")
_flag("SO_RXQ_OVFL")
_flag("SO_SELECT_ERR_QUEUE")
_flag("SO_DONTROUTE", partial="kept: there is no gateway to go round")
_flag("SO_KEEPALIVE", partial="within the sandbox a peer is never lost")
_flag("SO_NO_CHECK", partial="kept: there are no checksums")
_flag("SO_PASSSEC", partial="kept: there are no security labels")
_flag("SO_WIFI_STATUS", partial="kept: there is no wireless interface")
_flag("SO_NOFCS", partial="kept: there is no frame check sequence")
_flag("SO_RCVMARK", partial="kept: packets have no marks")
_flag("SO_PREFER_BUSY_POLL", partial="kept: there is nothing to poll")
_flag("SO_DEBUG", _set_debug, "kept: nothing is recorded")
_flag("SO_TIMESTAMP_OLD", _set_stamp)
_flag("SO_TIMESTAMPNS_OLD", _set_stamp)
_flag("SO_TIMESTAMP_NEW", _set_stamp)
_flag("SO_TIMESTAMPNS_NEW", _set_stamp)
_flag("SO_ZEROCOPY", _set_zerocopy, "everything is copied, which is told", SWITCH)
_flag("SO_LOCK_FILTER", _lock_filter)


# --- numbers that are kept


def _get_number(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.numbers.get(row.number, row.default))


def _set_number(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.numbers[row.number] = row.number_in(value)


def _set_mark(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if not _may_raw(sock, caller) and not _is_admin(sock, caller):
        raise EPERM(row.name)
    _set_number(row, sock, caller, value)


def _set_priority(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if 0 <= row.number_in(value) <= 6:
        _set_number(row, sock, caller, value)
    else:
        _set_mark(row, sock, caller, value)


def _set_busy_poll(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if row.parse(value) > sock.numbers.get(row.number, 0) and not _is_admin(sock, caller):
        raise EPERM(row.name)
    _set_number(row, sock, caller, value)


def _set_lowat(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    number = row.number_in(value)
    if sock.family in INET and sock.kind == SOCK_STREAM:
        number = min(number, sock.rcvbuf >> 1 if sock.chose_rcvbuf else MAX_TCP_LOWAT)
    sock.numbers[row.number] = number
    sock.queue.notify(EPOLLIN)


def _get_peek_offset(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    if not sock.peek_offset:
        raise EOPNOTSUPP(row.name)
    return _get_number(row, sock, caller, size)


def _set_peek_offset(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if not sock.peek_offset:
        raise EOPNOTSUPP(row.name)
    _set_number(row, sock, caller, value)


def _get_stamping(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    return struct.pack("<ii", sock.numbers.get(row.number, 0), 0)


def _refuse_memory(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    row.number_in(value)
    raise EOPNOTSUPP(row.name)


def _check_rehash(row: Option, sock: Socket) -> None:
    if sock.family not in INET or sock.kind != SOCK_STREAM:
        raise EOPNOTSUPP(row.name)


def _get_rehash(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    _check_rehash(row, sock)
    return _get_number(row, sock, caller, size)


def _set_rehash(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    _check_rehash(row, sock)
    sock.numbers[row.number] = abs(row.number_in(value))


def _get_rate(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    rate = sock.numbers.get(row.number, U32)
    if size < 8:
        return struct.pack("<I", rate)
    return struct.pack("<Q", (1 << 64) - 1 if rate == U32 else rate)


SOCKET.row(
    "SO_MARK", _get_number, _set_mark,
    partial="for rules of routing and of netfilter, of what leaves by a link",
)  # fmt: skip
SOCKET.row("SO_PRIORITY", _get_number, _set_priority, partial="kept: there is one queue")
SOCKET.row(
    "SO_RCVLOWAT", _get_number, _set_lowat,
    check=lambda number: 0x7FFFFFFF if number < 0 else number or 1, default=1,
)  # fmt: skip
SOCKET.row("SO_PEEK_OFF", _get_peek_offset, _set_peek_offset, partial="AF_UNIX alone")
SOCKET.row(
    "SO_BUSY_POLL", _get_number, _set_busy_poll, check=Within(0, 0x7FFFFFFF),
    partial="kept: there is nothing to poll",
)  # fmt: skip
SOCKET.row(
    "SO_BUSY_POLL_BUDGET", None, take, check=Within(0, 0xFFFF),
    partial="without effect: there is nothing to poll",
)  # fmt: skip
SOCKET.row("SO_BUF_LOCK", _get_number, _set_number, check=_bits(3), partial="kept alone")
SOCKET.row(
    "SO_RESERVE_MEM", _get_number, _refuse_memory, check=Within(0, 0x7FFFFFFF),
    partial="nothing is reserved: EOPNOTSUPP",
)  # fmt: skip
SOCKET.row(
    "SO_INCOMING_CPU", _get_number, _set_number, default=-1, partial="kept: packets have no CPU"
)
for _name in ("SO_TIMESTAMPING_OLD", "SO_TIMESTAMPING_NEW"):
    SOCKET.row(_name, _get_stamping, _set_number, check=_bits(SOF_TIMESTAMPING_MASK),
               partial="kept: no stamps of these kinds are made")  # fmt: skip
SOCKET.row("SO_TXREHASH", _get_rehash, _set_rehash, check=Within(-1, 1), default=1,
           partial="kept: there is one way")  # fmt: skip
SOCKET.row("SO_MAX_PACING_RATE", _get_rate, _set_number, check=lambda number: number & U32,
           partial="kept: nothing is paced")  # fmt: skip
SOCKET.row("SO_BSDCOMPAT", show_default, take)
SOCKET.row("SO_CNX_ADVICE", None, take)


# --- buffers


def _buffer(number: int) -> int:
    """Bytes with their overhead: rmem_max and wmem_max count,"""
    return min(number & U32, MAX_BUFFER) * 2


def _forced(number: int) -> int:
    """unless CAP_NET_ADMIN forces."""
    return min(max(number, 0), MAX_FORCED) * 2


def _set_rcvbuf(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.chose_rcvbuf = True
    sock.rcvbuf = max(MIN_RCVBUF, row.number_in(value))


def _set_sndbuf(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.chose_sndbuf = True
    sock.sndbuf = max(MIN_SNDBUF, row.number_in(value))
    sock.queue.notify(EPOLLOUT)


def _force(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if not _is_admin(sock, caller):
        raise EPERM(row.name)
    (_set_rcvbuf if row.number == abi.SO_RCVBUFFORCE else _set_sndbuf)(row, sock, caller, value)


SOCKET.row("SO_RCVBUF", shows(lambda sock: sock.rcvbuf), _set_rcvbuf, check=_buffer)
SOCKET.row("SO_SNDBUF", shows(lambda sock: sock.sndbuf), _set_sndbuf, check=_buffer)
SOCKET.row("SO_RCVBUFFORCE", None, _force, check=_forced, partial="32 MiB at most")
SOCKET.row("SO_SNDBUFFORCE", None, _force, check=_forced, partial="32 MiB at most")
SOCKET.row("SO_SNDLOWAT", show_default, default=1)
SOCKET.row(
    "SO_MEMINFO", tells(lambda sock: struct.pack("<9I", 0, sock.rcvbuf, 0, sock.sndbuf, *bytes(5))),
    partial="shows the sizes of the buffers alone",
)  # fmt: skip


# --- times


def parse_timeout(value: bytes) -> int | None:
    """struct timeval to ns; zero means for ever. Raises: EINVAL, EDOM."""
    if len(value) < 16:
        raise EINVAL("struct timeval")
    seconds, micros = struct.unpack_from("<qq", value)
    if not 0 <= micros < 1_000_000:
        raise EDOM("tv_usec")
    if seconds < 0:
        return 0
    if seconds >= LONGEST_SECONDS:
        return None
    return (seconds * 1_000_000 + micros) * 1000 or None


def format_timeout(timeout_ns: int | None) -> bytes:
    """ns to struct timeval."""
    micros = (timeout_ns or 0) // 1000
    return struct.pack("<qq", micros // 1_000_000, micros % 1_000_000)


def _set_rcvtimeo(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.rcvtimeo_ns = parse_timeout(value)


def _set_sndtimeo(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    sock.sndtimeo_ns = parse_timeout(value)


def _set_linger(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    if len(value) < 8:
        raise EINVAL("struct linger")
    on, seconds = struct.unpack_from("<ii", value)
    sock.linger = (int(bool(on)), seconds)


for _name in ("SO_RCVTIMEO_OLD", "SO_RCVTIMEO_NEW"):
    SOCKET.row(_name, tells(lambda sock: format_timeout(sock.rcvtimeo_ns)), _set_rcvtimeo)
for _name in ("SO_SNDTIMEO_OLD", "SO_SNDTIMEO_NEW"):
    SOCKET.row(_name, tells(lambda sock: format_timeout(sock.sndtimeo_ns)), _set_sndtimeo)
SOCKET.row("SO_LINGER", tells(lambda sock: struct.pack("<ii", *sock.linger)), _set_linger)
SOCKET.row("SO_TXTIME", tells(lambda sock: bytes(8)), partial="only read: nothing is sent later")


# --- interfaces


def _bind_to_index(sock: Socket, caller: Caller, index: int) -> None:
    """sock_bindtoindex_locked()."""
    if sock.numbers.get(abi.SO_BINDTOIFINDEX, 0) and not _may_raw(sock, caller):
        raise EPERM("CAP_NET_RAW")
    if index < 0:
        raise EINVAL("interface")
    sock.numbers[abi.SO_BINDTOIFINDEX] = index
    sock.device_changed()


def _set_index(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    _bind_to_index(sock, caller, row.number_in(value))


def _set_device(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    name = value[: IFNAMSIZ - 1].split(b"\0", 1)[0].decode(errors="replace")
    _bind_to_index(sock, caller, sock.stack.interfaces.by_name(name).index if name else 0)


def _get_device(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    index = sock.numbers.get(abi.SO_BINDTOIFINDEX, 0)
    if not index:
        return b""
    if size < IFNAMSIZ:
        raise EINVAL("length")
    try:
        return sock.stack.interfaces.by_index(index).name.encode() + b"\0"
    except ENODEV:
        return b""


SOCKET.row("SO_BINDTOIFINDEX", _get_number, _set_index)
SOCKET.row("SO_BINDTODEVICE", _get_device, _set_device)
SOCKET.row("SO_INCOMING_NAPI_ID", show_default)


# --- what a socket is


def _get_cookie(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    if size < 8:
        raise EINVAL("u64 expected")
    sock.cookie = sock.cookie or sock.stack.next_cookie()
    return struct.pack("<Q", sock.cookie)


def _get_stack_cookie(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    if size != 8:
        raise EINVAL("u64 expected")
    return struct.pack("<Q", 1)


def _get_error(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    number, sock.so_error = sock.so_error, 0
    return INT.pack(number)


def _no_peer(row: Option, sock: Any, caller: Any, size: int) -> bytes:
    raise ENODATA("no peer")


def _get_peer_name(row: Option, sock: Socket, caller: Caller, size: int) -> bytes:
    try:
        address = sock.named_peer()
    except EOPNOTSUPP:
        raise ENOTCONN("no peer") from None
    if size > len(address):
        raise EINVAL(row.name)
    return address


SOCKET.row("SO_TYPE", shows(lambda sock: sock.kind))
SOCKET.row("SO_DOMAIN", shows(lambda sock: sock.family))
SOCKET.row("SO_PROTOCOL", shows(lambda sock: sock.protocol))
SOCKET.row("SO_ACCEPTCONN", shows(lambda sock: sock.listening))
SOCKET.row("SO_ERROR", _get_error)
SOCKET.row("SO_COOKIE", _get_cookie)
SOCKET.row("SO_NETNS_COOKIE", _get_stack_cookie, partial="1 for every namespace")
SOCKET.row("SO_PEERCRED", tells(lambda sock: NOBODY))
SOCKET.row("SO_PEERGROUPS", _no_peer)
SOCKET.row("SO_PEERPIDFD", _no_peer)
SOCKET.row("SO_PEERNAME", _get_peer_name)
