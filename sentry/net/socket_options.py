"""Options of SOL_SOCKET. socket(7), sk_setsockopt(), sk_getsockopt()."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.capability import CAP_NET_ADMIN, CAP_NET_RAW
from sentry.abi.poll import EPOLLIN, EPOLLOUT
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IFNAMSIZ,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SO_PEEK_OFF,
    SO_RCVLOWAT,
    SOCK_STREAM,
    SOF_TIMESTAMPING_MASK,
)
from sentry.bpf.isa import pack
from sentry.errors import (
    EACCES,
    EDOM,
    EINVAL,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
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
NS_PER_SECOND: Final = 10**9
LONGEST_SECONDS: Final = (1 << 63) // 1000
MAX_TCP_LOWAT: Final = 3145728
"""Half of the highest value of net.ipv4.tcp_rmem."""
MAX_BUDGET: Final = 0xFFFF
MAX_FILTER: Final = 4096

FLAG_OPTIONS: Final = frozenset(
    {
        abi.SO_DEBUG, abi.SO_REUSEADDR, abi.SO_DONTROUTE, abi.SO_BROADCAST, abi.SO_KEEPALIVE,
        abi.SO_OOBINLINE, abi.SO_REUSEPORT, abi.SO_PASSCRED, abi.SO_NO_CHECK, abi.SO_PASSSEC,
        abi.SO_PASSPIDFD, abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMP_NEW,
        abi.SO_TIMESTAMPNS_NEW, abi.SO_RXQ_OVFL, abi.SO_WIFI_STATUS, abi.SO_NOFCS,
        abi.SO_LOCK_FILTER, abi.SO_SELECT_ERR_QUEUE, abi.SO_ZEROCOPY, abi.SO_RCVMARK,
        abi.SO_PREFER_BUSY_POLL,
    }
)  # fmt: skip
"""Options that are on or off."""
STAMPS: Final = frozenset(
    {
        abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMP_NEW, abi.SO_TIMESTAMPNS_NEW,
    }
)  # fmt: skip
"""Of these one at a time."""
NUMBER_OPTIONS: Final = frozenset(
    {
        abi.SO_PRIORITY, abi.SO_MARK, SO_RCVLOWAT, SO_PEEK_OFF, abi.SO_BUSY_POLL,
        abi.SO_BINDTOIFINDEX, abi.SO_BUF_LOCK, abi.SO_RESERVE_MEM, abi.SO_INCOMING_CPU,
        abi.SO_TIMESTAMPING_OLD, abi.SO_TIMESTAMPING_NEW,
    }
)  # fmt: skip
IGNORED: Final = frozenset({abi.SO_BSDCOMPAT, abi.SO_CNX_ADVICE})
"""Taken, and without effect here."""
STAMPING: Final = frozenset({abi.SO_TIMESTAMPING_OLD, abi.SO_TIMESTAMPING_NEW})
RCVTIMEO: Final = (abi.SO_RCVTIMEO_OLD, abi.SO_RCVTIMEO_NEW)
SNDTIMEO: Final = (abi.SO_SNDTIMEO_OLD, abi.SO_SNDTIMEO_NEW)
PRIVILEGED: Final = frozenset({abi.SO_DEBUG, abi.SO_MARK, abi.SO_RCVBUFFORCE, abi.SO_SNDBUFFORCE})
INET: Final = (AF_INET, AF_INET6)


def check_rights(sock: Socket, caller: Caller, name: int, number: int) -> None:
    """What needs a capability. Raises: EPERM."""
    if name == abi.SO_DEBUG and not number:
        return
    owner = sock.stack.owner
    admin = caller.creds.has_in(owner, CAP_NET_ADMIN)
    raw = caller.creds.has_in(owner, CAP_NET_RAW)
    if name == abi.SO_MARK and raw:
        return
    if name == abi.SO_DEBUG and not admin:
        raise EACCES("SO_DEBUG")
    if name in PRIVILEGED and not admin:
        raise EPERM(f"option {name}")
    usual = name != abi.SO_PRIORITY or 0 <= number <= 6
    if not usual and not admin and not raw:
        raise EPERM("priority")
    if name == abi.SO_BUSY_POLL:
        if number > sock.numbers.get(name, 0) and not admin:
            raise EPERM("SO_BUSY_POLL")
        if number < 0:
            raise EINVAL("SO_BUSY_POLL")


def set_option(sock: Socket, caller: Caller, name: int, value: bytes) -> None:
    """setsockopt(2) of SOL_SOCKET, in the order of checks of sk_setsockopt()."""
    if name == abi.SO_BINDTODEVICE:
        _bind_to_device(sock, caller, value)
        return
    if len(value) < 4:
        raise EINVAL("int expected")
    (number,) = struct.unpack_from("<i", value)
    if name in RCVTIMEO:
        sock.rcvtimeo_ns = parse_timeout(value)
        return
    if name in SNDTIMEO:
        sock.sndtimeo_ns = parse_timeout(value)
        return
    if name == abi.SO_LINGER:
        if len(value) < 8:
            raise EINVAL("struct linger")
        on, seconds = struct.unpack_from("<ii", value)
        sock.linger = (1 if on else 0, seconds)
        return
    check_rights(sock, caller, name, number)
    if name in FLAG_OPTIONS:
        _set_flag(sock, name, number)
    elif name in (abi.SO_RCVBUF, abi.SO_RCVBUFFORCE):
        sock.rcvbuf = max(MIN_RCVBUF, _buffer(number, name == abi.SO_RCVBUFFORCE))
    elif name in (abi.SO_SNDBUF, abi.SO_SNDBUFFORCE):
        sock.chose_sndbuf = True
        sock.sndbuf = max(MIN_SNDBUF, _buffer(number, name == abi.SO_SNDBUFFORCE))
        sock.queue.notify(EPOLLOUT)
    elif name in (abi.SO_ATTACH_FILTER, abi.SO_ATTACH_REUSEPORT_CBPF):
        sock.attach_filter(caller, value)
    elif name == abi.SO_DETACH_FILTER:
        if abi.SO_LOCK_FILTER in sock.options:
            raise EPERM("the filter is locked")
        if sock.filter is None:
            raise ENOENT("no filter")
        sock.filter = None
    elif name in NUMBER_OPTIONS:
        _set_number(sock, caller, name, number)
    elif name in IGNORED:
        pass
    elif name == abi.SO_BUSY_POLL_BUDGET:
        if not 0 <= number <= MAX_BUDGET:
            raise EINVAL("SO_BUSY_POLL_BUDGET")
    elif name == abi.SO_DETACH_REUSEPORT_BPF:
        raise EINVAL("no program")
    elif name == abi.SO_TXREHASH:
        _set_rehash(sock, number)
    elif name == abi.SO_MAX_PACING_RATE:
        sock.numbers[name] = number & 0xFFFFFFFF
    else:
        raise ENOPROTOOPT(f"SOL_SOCKET option {name}")


def _buffer(number: int, forced: bool) -> int:
    """Bytes with their overhead: rmem_max and wmem_max count, unless CAP_NET_ADMIN forces."""
    if forced:
        return min(max(number, 0), MAX_FORCED) * 2
    return min(number & 0xFFFFFFFF, MAX_BUFFER) * 2


def _set_flag(sock: Socket, name: int, number: int) -> None:
    on = bool(number)
    if name == abi.SO_ZEROCOPY and not (
        sock.family in INET and sock.protocol in (IPPROTO_TCP, IPPROTO_UDP)
    ):
        raise EOPNOTSUPP("SO_ZEROCOPY")
    if name == abi.SO_ZEROCOPY and number not in (0, 1):
        raise EINVAL("SO_ZEROCOPY")
    if name == abi.SO_LOCK_FILTER and name in sock.options and not on:
        raise EPERM("the filter is locked")
    if name in STAMPS:
        sock.options -= STAMPS
    if on:
        sock.options.add(name)
    else:
        sock.options.discard(name)
    sock.option_changed(name)


def _set_number(sock: Socket, caller: Caller, name: int, number: int) -> None:
    if name == SO_PEEK_OFF and not sock.peek_offset:
        raise EOPNOTSUPP("SO_PEEK_OFF")
    if name == SO_RCVLOWAT:
        number = 0x7FFFFFFF if number < 0 else number or 1
        if sock.family in INET and sock.kind == SOCK_STREAM:
            number = min(number, MAX_TCP_LOWAT)
        sock.numbers[name] = number
        sock.queue.notify(EPOLLIN)
        return
    if name == abi.SO_BINDTOIFINDEX:
        _bind_to_index(sock, caller, number)
        return
    if name in STAMPING and number & ~SOF_TIMESTAMPING_MASK:
        raise EINVAL("SO_TIMESTAMPING")
    if name == abi.SO_RESERVE_MEM:
        raise EINVAL("negative") if number < 0 else EOPNOTSUPP("SO_RESERVE_MEM")
    if name == abi.SO_BUF_LOCK and number & ~3:
        raise EINVAL("SO_BUF_LOCK")
    sock.numbers[name] = number


def _set_rehash(sock: Socket, number: int) -> None:
    if sock.family not in INET or sock.kind != SOCK_STREAM:
        raise EOPNOTSUPP("SO_TXREHASH")
    if not -1 <= number <= 1:
        raise EINVAL("SO_TXREHASH")
    sock.numbers[abi.SO_TXREHASH] = number if number >= 0 else 1


def _bind_to_device(sock: Socket, caller: Caller, value: bytes) -> None:
    name = value[: IFNAMSIZ - 1].split(b"\0", 1)[0].decode(errors="replace")
    index = sock.stack.interfaces.by_name(name).index if name else 0
    _bind_to_index(sock, caller, index)


def _bind_to_index(sock: Socket, caller: Caller, index: int) -> None:
    """sock_bindtoindex_locked()."""
    bound = sock.numbers.get(abi.SO_BINDTOIFINDEX, 0)
    if bound and not caller.creds.has_in(sock.stack.owner, CAP_NET_RAW):
        raise EPERM("CAP_NET_RAW")
    if index < 0:
        raise EINVAL("interface")
    sock.numbers[abi.SO_BINDTOIFINDEX] = index


def get_option(sock: Socket, caller: Caller, name: int, size: int) -> bytes:
    """getsockopt(2) of SOL_SOCKET: the value, at most `size` bytes of it."""
    if name == abi.SO_LINGER:
        return struct.pack("<ii", *sock.linger)[:size]
    if name in RCVTIMEO:
        return format_timeout(sock.rcvtimeo_ns)[:size]
    if name in SNDTIMEO:
        return format_timeout(sock.sndtimeo_ns)[:size]
    if name == abi.SO_BINDTODEVICE:
        return _bound_device(sock, size)
    if name in (abi.SO_COOKIE, abi.SO_NETNS_COOKIE):
        if size < 8 or (name == abi.SO_NETNS_COOKIE and size != 8):
            raise EINVAL("u64 expected")
        sock.cookie = sock.cookie or sock.stack.next_cookie()
        return struct.pack("<Q", sock.cookie if name == abi.SO_COOKIE else 1)
    if name == abi.SO_MEMINFO:
        return struct.pack("<9I", 0, sock.rcvbuf, 0, sock.sndbuf, 0, 0, 0, 0, 0)[:size]
    if name == abi.SO_TXTIME:
        return bytes(8)[:size]
    if name == abi.SO_MAX_PACING_RATE:
        rate = sock.numbers.get(name, 0xFFFFFFFF)
        wide = (1 << 64) - 1 if rate == 0xFFFFFFFF else rate
        return struct.pack("<Q", wide) if size >= 8 else struct.pack("<I", rate)[:size]
    if name == abi.SO_PEERCRED:
        return struct.pack("<iII", 0, 0xFFFFFFFF, 0xFFFFFFFF)[:size]
    if name == abi.SO_PEERGROUPS:
        raise ENODATA("no peer")
    if name == abi.SO_PEERNAME:
        address = _peer_name(sock)
        if size > len(address):
            raise EINVAL("SO_PEERNAME")
        return address[:size]
    if name == abi.SO_ERROR:
        value, sock.so_error = sock.so_error, 0
        return struct.pack("<i", value)[:size]
    if name in STAMPING:
        return struct.pack("<ii", sock.numbers.get(name, 0), 0)[:size]
    found = _number(sock, name)
    if found is None:
        raise ENOPROTOOPT(f"SOL_SOCKET option {name}")
    return struct.pack("<i", found)[:size]


def _peer_name(sock: Socket) -> bytes:
    try:
        return sock.named_peer()
    except EOPNOTSUPP:
        raise ENOTCONN("no peer") from None


def _number(sock: Socket, name: int) -> int | None:
    if name in FLAG_OPTIONS:
        return int(name in sock.options)
    if name == SO_PEEK_OFF and not sock.peek_offset:
        raise EOPNOTSUPP("SO_PEEK_OFF")
    fixed = {
        abi.SO_TYPE: sock.kind,
        abi.SO_DOMAIN: sock.family,
        abi.SO_PROTOCOL: sock.protocol,
        abi.SO_ACCEPTCONN: int(sock.listening),
        abi.SO_RCVBUF: sock.rcvbuf,
        abi.SO_SNDBUF: sock.sndbuf,
        abi.SO_SNDLOWAT: 1,
        abi.SO_BPF_EXTENSIONS: 64,
        abi.SO_INCOMING_NAPI_ID: 0,
        abi.SO_PREFER_BUSY_POLL: 0,
    }
    if name == abi.SO_TXREHASH:
        if sock.family not in INET or sock.kind != SOCK_STREAM:
            raise EOPNOTSUPP("SO_TXREHASH")
        return sock.numbers.get(name, 1)
    if name == abi.SO_BSDCOMPAT:
        return 0
    if name in fixed:
        return fixed[name]
    if name not in NUMBER_OPTIONS:
        return None
    return sock.numbers.get(name, -1 if name == abi.SO_INCOMING_CPU else 0)


def _bound_device(sock: Socket, size: int) -> bytes:
    index = sock.numbers.get(abi.SO_BINDTOIFINDEX, 0)
    if not index:
        return b""
    if size < IFNAMSIZ:
        raise EINVAL("length")
    try:
        return sock.stack.interfaces.by_index(index).name.encode() + b"\0"
    except ENODEV:
        return b""


def attached_filter(sock: Socket, size: int) -> tuple[bytes, int]:
    """SO_GET_FILTER: its code and how many instructions it has; `size` counts them too."""
    if sock.filter is None:
        return b"", 0
    count = len(sock.filter)
    if not size:
        return b"", count
    if size < count:
        raise EINVAL("room for the filter")
    return pack(sock.filter), count


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
