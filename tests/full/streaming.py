"""A client of the CRI's streaming server: exec, attach and port-forward over a WebSocket.

Each message begins with the number of its channel. Sources: RFC 6455; k8s.io/apimachinery,
pkg/util/httpstream/wsstream ("v4.channel.k8s.io"); k8s.io/kubelet, pkg/cri/streaming/portforward.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from urllib.parse import urlsplit

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
ENDED = 255
"""Version 5: says of another channel that nothing more comes."""
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
TIMEOUT_S = 60
BINARY, CLOSE = 2, 8


class NotServed(Exception):
    """The server does not speak it; what it said."""


class Stream:
    """One connection."""

    def __init__(self, url: str, protocol: str = V4) -> None:
        """Raises: NotServed."""
        parts = urlsplit(url)
        self._sock = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)
        key = base64.b64encode(os.urandom(16)).decode()
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket",
            "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {protocol}", f"Origin: http://{parts.netloc}", "", "",
        ]  # fmt: skip
        self._sock.sendall("\r\n".join(lines).encode())
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or protocol.encode() not in head:
            self.close()
            raise NotServed(head.decode(errors="replace"))
        self.heard: dict[int, bytes] = {}
        """By channel."""

    def _more(self) -> None:
        more = self._sock.recv(1 << 16)
        assert more, "the connection has ended"
        self._data += more

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _frame(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        return first & 15, self._take(size)

    def send(self, channel: int, data: bytes) -> None:
        """A message, as one frame whose mask is zero."""
        data = bytes([channel]) + data
        size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BH", 254, len(data))
        self._sock.sendall(bytes([0x80 | BINARY]) + size + bytes(4) + data)

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size."""
        self.send(RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    def end(self, channel: int) -> None:
        """Nothing more is sent there: version 5."""
        self.send(ENDED, bytes([channel]))

    def hear(self, channel: int, text: bytes) -> None:
        """Until this has come."""
        while text not in self.heard.get(channel, b""):
            assert self._step(), (text, self.heard)

    def finish(self) -> int:
        """Until the other side closes. The exit code of what ran there."""
        while self._step():
            pass
        self.close()
        told = json.loads(self.heard[ERROR])
        if told["status"] == "Success":
            return 0
        causes = {each["reason"]: each["message"] for each in told["details"]["causes"]}
        return int(causes["ExitCode"])

    def _step(self) -> bool:
        kind, data = self._frame()
        if kind == CLOSE:
            return False
        if data:
            self.heard[data[0]] = self.heard.get(data[0], b"") + data[1:]
        return True

    def close(self) -> None:
        self._sock.close()
