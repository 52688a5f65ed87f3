"""Options of IPPROTO_UDP and IPPROTO_UDPLITE: udp(7), udplite(7), udp_lib_setsockopt().

Both levels name the options of either; the coverages of UDP-Lite are only set on its own sockets.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.abi.socket import IPPROTO_UDP, IPPROTO_UDPLITE
from sentry.errors import ENOPROTOOPT
from sentry.net.inet.ip_options import IP
from sentry.net.inet.ipv6_options import IPV6
from sentry.net.options import INT, Check, Option, Options, Setter, Within, flag
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.inet.udp import UdpSocket
    from sentry.net.inet.udplite import UdpLiteSocket
    from sentry.vfs.file import Caller

LEVELS: Final = (IPPROTO_UDP, IPPROTO_UDPLITE)
HEADER_SIZE: Final = 8
MOST: Final = 0xFFFF
COVERAGE: Final = SimpleNamespace(UDPLITE_SEND_CSCOV=10, UDPLITE_RECV_CSCOV=11)
"""net/udplite.h, which is not among the headers for programs."""
DEFAULTS: Final[dict[int, int]] = {}


def _encapsulation(number: int) -> int:
    if number:
        raise ENOPROTOOPT("UDP_ENCAP")
    return 0


def _coverage(number: int) -> int:
    """A size with the header; 0 is everything."""
    return number and min(max(number, HEADER_SIZE), MOST)


def _get_number(row: Option, sock: UdpSocket, caller: Caller, size: int) -> bytes:
    return INT.pack(sock.udp_options.get(row.number, 0))


def _set_number(row: Option, sock: UdpSocket, caller: Caller, value: bytes) -> None:
    sock.udp_options[row.number] = row.number_in(value)


def _set_cork(row: Option, sock: UdpSocket, caller: Caller, value: bytes) -> None:
    _set_number(row, sock, caller, value)
    if not sock.udp_options[row.number]:
        sock.uncork()


def _set_wanted(row: Option, sock: UdpLiteSocket, caller: Caller, value: bytes) -> None:
    _set_number(row, sock, caller, value)
    sock.wanted = sock.udp_options[row.number]


def _rows(level: int, *bases: Options) -> Options:
    rows = Options(level, abi, *bases)

    def number(name: str, check: Check, setter: Setter = _set_number, partial: str = "") -> None:
        DEFAULTS[rows.row(name, _get_number, setter, check=check, partial=partial).number] = 0

    number("UDP_CORK", flag, _set_cork)
    number("UDP_ENCAP", _encapsulation, partial="0 alone: no encapsulation")
    number("UDP_NO_CHECK6_TX", flag, partial="kept: there are no checksums")
    number("UDP_NO_CHECK6_RX", flag, partial="kept: there are no checksums")
    number("UDP_SEGMENT", Within(0, 0xFFFF))
    number("UDP_GRO", flag, partial="kept: nothing is put together")
    return rows


def _coverages(
    level: int, setters: tuple[Setter | None, Setter | None], *bases: Options
) -> Options:
    rows = Options(level, COVERAGE, *bases)
    for name, setter in zip(vars(COVERAGE), setters, strict=True):
        rows.row(name, _get_number, setter, check=_coverage)
    return rows


BOTH: Final = _rows(IPPROTO_UDP, _rows(IPPROTO_UDPLITE), IP, IPV6, SOCKET)
UDP: Final = _coverages(IPPROTO_UDP, (None, None), _coverages(IPPROTO_UDPLITE, (None, None)), BOTH)
UDPLITE: Final = _coverages(
    IPPROTO_UDP,
    (_set_number, _set_wanted),
    _coverages(IPPROTO_UDPLITE, (_set_number, _set_wanted)),
    BOTH,
)
