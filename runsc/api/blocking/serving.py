"""Who serves an object of the caller's to a sandbox: a thread of its own. Not generated."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from runsc.fs.service import Service, waits

PIECE = 1 << 18
log = logging.getLogger("runsc")


class Serving:
    """One session."""

    def __init__(self, service: Service, served: object, sock: socket.socket) -> None:
        """Raises: TypeError for an object with coroutine functions."""
        if waits(served):
            sock.close()
            raise TypeError("methods that are coroutine functions need an AsyncSandbox")
        self._service = service
        self._sock = sock
        self._lock = threading.RLock()
        """Of the object: one request at a time, and one reply."""
        service.send = self._send
        self._thread = threading.Thread(target=self._serve, name="runsc-serving", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def close(self) -> None:
        """The sandbox gets EIO from now on."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        reader = FrameReader(MSIZE_MAX)
        try:
            while data := self._sock.recv(PIECE):
                for tag, message in reader.feed(data):
                    self._answer(tag, message)
        except (OSError, ProtocolError):
            pass  # it has ended, or the sandbox says what is no 9P
        finally:
            self._sock.close()
            with self._lock:
                _driven(self._service.end())

    def _answer(self, tag: int, message: Message) -> None:
        with self._lock:
            reply = _driven(self._service.answer(tag, message))
            if reply is not None:
                self._send(tag, reply)

    def _send(self, tag: int, reply: Message) -> None:
        with self._lock, suppress(OSError):
            self._sock.sendall(reply.encode(tag))


def _driven(coro: Any) -> Any:
    """What a coroutine gives in which nothing waits."""
    try:
        coro.send(None)
    except StopIteration as end:
        return end.value
    coro.close()
    raise RuntimeError("what is served waits for something")
