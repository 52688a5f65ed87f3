"""A listener of gVisor's wire: it takes connections, agrees on a version, and keeps what comes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runsc.containers.watching import KINDS, Told, parse
from sentry.protobuf import decode, encode
from sentry.syscalls.registry import NUMBERS
from sentry.watch.messages import Handshake

MAX_MESSAGE = 1 << 20


class Listener:
    """One socket; messages of all who connect, in the order in which they came."""

    def __init__(self, path: Path, *, version: int = 1) -> None:
        self.path = path
        self.messages: list[bytes] = []
        self._version = version
        self._clients: list[tuple[socket.socket, threading.Thread]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.bind(str(path))
        self._sock.listen()
        self._ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._hear, args=(client,), daemon=True)
            self._clients.append((client, thread))
            thread.start()

    def _hear(self, client: socket.socket) -> None:
        if decode(Handshake, client.recv(1000)).version == self._version:
            client.send(encode(Handshake(self._version)))
            while data := client.recv(MAX_MESSAGE):
                self.messages.append(data)
            self._ended.release()
        client.shutdown(socket.SHUT_RDWR)

    def ended(self) -> list[Told]:
        """All messages, once a sandbox that has connected is gone."""
        assert self._ended.acquire(timeout=60), "nobody has come and gone"
        return self.told()

    def told(self) -> list[Told]:
        """What has come so far. Each has a header of eight bytes and a message that is known."""
        found = []
        for data in self.messages:
            size, kind, dropped = struct.unpack_from("<HHI", data)
            assert (size, dropped) == (8, 0)
            assert kind in KINDS
            told = parse(data, lambda number: NUMBERS.get(number, ""))
            assert told is not None
            found.append(told)
        return found

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()
        for client, thread in self._clients:
            client.shutdown(socket.SHUT_RDWR)
            thread.join()
            client.close()


@contextmanager
def listening(path: Path, *, version: int = 1) -> Iterator[Listener]:
    """To its end."""
    made = Listener(path, version=version)
    try:
        yield made
    finally:
        made.close()


def session(endpoint: Path, *points: Any, **more: Any) -> dict[str, Any]:
    """A document for --pod-init-config: names of points, or objects."""
    named = [{"name": each} if isinstance(each, str) else each for each in points]
    sink = {"name": "remote", "config": {"endpoint": str(endpoint)}}
    return {"trace_session": {"name": "Default", "points": named, "sinks": [sink], **more}}
