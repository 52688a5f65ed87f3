"""The rows of `options.py`: what is passed on to the host's socket, and what needs no call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi import socket as abi
from sentry.net.host import calls
from sentry.net.host.options import MAX_VALUE, READABLE, SETTABLE
from sentry.net.options import Option, Options, anything, show_nothing, whole
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.host.socket import HostSocket
    from sentry.vfs.file import Caller

OURS: Final = frozenset(
    {
        "SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_PEERPIDFD",
        "SO_RCVTIMEO_OLD", "SO_RCVTIMEO_NEW", "SO_SNDTIMEO_OLD", "SO_SNDTIMEO_NEW",
    }
)  # fmt: skip
"""Options of SOL_SOCKET that need no call."""


def _pass_set(row: Option, sock: HostSocket, caller: Caller, value: bytes) -> None:
    calls.set_option(sock.fd, row.level, row.number, value[:MAX_VALUE])


def _pass_get(row: Option, sock: HostSocket, caller: Caller, size: int) -> bytes:
    return calls.option(sock.fd, row.level, row.number, min(size, MAX_VALUE))


def _get_error(row: Option, sock: HostSocket, caller: Caller, size: int) -> bytes:
    """SO_ERROR: ours, in a copy."""
    number, sock.so_error = sock.so_error, 0
    return number.to_bytes(4, "little") if number else _pass_get(row, sock, caller, size)


def _set_lowat(row: Option, sock: HostSocket, caller: Caller, value: bytes) -> None:
    """SO_RCVLOWAT: the host's, and ours for how long a receive waits."""
    _pass_set(row, sock, caller, value)
    ours = SOCKET[row.level, row.number]
    assert ours.setter is not None
    ours.setter(ours, sock, caller, value)


HOST: Final = Options(abi.SOL_SOCKET, abi)
HOST.row("SO_ATTACH_FILTER", show_nothing)
for _row in SOCKET.declared:
    if _row.name in OURS:
        HOST.declare((_row.level, _row.number), _row)
for _level, _number in sorted(READABLE):
    _key = (_level, _number)
    _setter = _pass_set if _key in SETTABLE else None
    if _key == (abi.SOL_SOCKET, abi.SO_RCVLOWAT):
        _setter = _set_lowat
    _getter = _get_error if _key == (abi.SOL_SOCKET, abi.SO_ERROR) else _pass_get
    HOST.declare(_key, Option(_level, _number, "", _getter, _setter, anything, whole, 0, ""))
