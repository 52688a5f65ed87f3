"""The host kernel as the oracle: classic BPF programs on a pair of datagram sockets."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

from sentry.bpf.isa import Instruction, pack

SO_ATTACH_FILTER = 26


def attach(sock: socket.socket, program: Iterable[Instruction]) -> bool:
    """Whether Linux accepts the program as a socket filter."""
    data = pack(program)
    buffer = ctypes.create_string_buffer(data, len(data))
    fprog = struct.pack("@HP", len(data) // 8, ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
    except OSError:
        return False
    return True


def passed_length(program: Iterable[Instruction], packet: bytes) -> int:
    """How many bytes of the packet an attached program lets through."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        assert attach(receiver, program)
        sender.setblocking(False)
        receiver.setblocking(False)
        try:
            sender.send(packet)
            return len(receiver.recv(1 << 16))
        except (BlockingIOError, PermissionError):
            return 0
