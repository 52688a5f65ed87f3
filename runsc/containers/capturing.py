"""What goes by a container's interfaces, into a file: the command line's side of
`debug --packets`. The sandbox, which is not trusted, is asked again and again."""

from __future__ import annotations

import select
import socket
import time
from math import inf
from typing import TYPE_CHECKING

from runsc.containers import listener, pcapng
from runsc.errors import RuntimeFailure
from runsc.log import printable
from sentry.control.answers import CapturedInterface
from sentry.control.protocol import LineBuffer, Reply, Request, decode

if TYPE_CHECKING:
    from sentry.control.answers import Packets

MAX_NAME = 255
U64 = (1 << 64) - 1
LAST_S = 10.0
"""For what a sandbox has yet when somebody has stopped it."""


class Capturing:
    """One file that grows."""

    def __init__(self, sock: socket.socket, writer: pcapng.Writer, interface: str) -> None:
        """`sock`: connected to the sandbox; `interface`: its name; empty: all."""
        self._sock = sock
        self._writer = writer
        self._interface = interface
        self._lines = LineBuffer()
        self._known: dict[int, tuple[int, CapturedInterface]] = {}
        """By its index in the sandbox: its number in the file, and what is known of it."""
        self._questions = 0
        self._ends = False
        self._is_over = False

    @property
    def lost(self) -> int:
        """Frames that are not in the file."""
        return sum(told.lost for _, told in self._known.values())

    def run(self, stop: int) -> None:
        """Until something can be read from `stop`, or the container has ended.

        Raises: RuntimeFailure, OSError.
        """
        self._sock.settimeout(LAST_S)  # it may answer and take no question
        self._writer.flush()
        self._ask()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(stop, select.POLLIN)
        until = inf
        while not self._is_over and (left_s := until - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(None if left_s == inf else left_s * 1000)}
            if stop in ready:
                poll.unregister(stop)
                self._ends, until = True, time.monotonic() + LAST_S
                self._ask()
            elif self._sock.fileno() in ready:
                self._hear()
        now_ns = time.time_ns()
        for number, told in self._known.values():
            self._writer.statistics(number, now_ns, told.seen & U64, told.lost & U64)
        self._writer.flush()

    def _ask(self) -> None:
        self._questions += 1
        request = Request("packets", interface=self._interface, ends=self._ends)
        try:
            listener.send(self._sock, request)
        except (BrokenPipeError, ConnectionResetError):
            self._is_over = True

    def _hear(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self._is_over = True
            return
        try:
            replies = [decode(line, Reply) for line in self._lines.feed(data)]
        except ValueError:
            raise RuntimeFailure("the sandbox said what is no message") from None
        for reply in replies:
            if reply.error or reply.packets is None:
                raise RuntimeFailure(printable(reply.error) or "the sandbox shows no packets")
            self._questions -= 1
            self._write(reply.packets)
            if self._ends and not reply.packets.frames and self._questions <= 0:
                self._is_over = True
                return
        if replies and self._questions <= 0:
            self._ask()

    def _write(self, packets: Packets) -> None:
        for told in packets.interfaces:
            known = self._known.get(told.index)
            if known is None:
                link_type = pcapng.ETHERNET if told.has_header else pcapng.RAW
                number = self._writer.interface(printable(told.name)[:MAX_NAME], link_type)
            else:
                number = known[0]
            self._known[told.index] = number, told
        for frame in packets.frames:
            if frame.index in self._known:
                number = self._known[frame.index][0]
                self._writer.frame(number, frame.at_ns, frame.data, outgoing=frame.outgoing)
        self._writer.flush()
