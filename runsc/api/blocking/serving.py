"""Who serves an object of the caller's to a sandbox: a thread of its own. Not generated."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from gofer.p9.codec import Message
from gofer.p9.constants import MSIZE_MAX
from gofer.p9.fields import ProtocolError
from gofer.p9.frames import FrameReader
from runsc.api.told import (
    CONNECTIONS,
    LATER,
    LATER_S,
    LINE_S,
    MAX_LINE,
    Place,
    Told,
    handler_of,
    told_of,
)
from runsc.fs.service import Service, waits

PIECE = 1 << 18
Handler = Callable[["Connection"], object]
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
        self._lock = threading.Lock()
        """Of the object: one request at a time, and one reply."""
        self._unsent: SimpleQueue[bytes] = SimpleQueue()
        """Replies that come later; none: there will be no more. While the sandbox does not take
        one of them it is asked nothing, so they are few."""
        service.send = self._send_later
        self._thread = threading.Thread(target=self._serve, name="runsc-serving", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()
        threading.Thread(target=self._write, name="runsc-serving-later", daemon=True).start()

    def close(self) -> None:
        """The sandbox gets EIO from now on."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def ended(self, patience_s: float) -> bool:
        """Once nothing of it runs any more; False if that takes longer."""
        if self._thread is not threading.current_thread():
            self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        reader = FrameReader(MSIZE_MAX)
        try:
            while data := self._sock.recv(PIECE):
                for tag, message in reader.feed(data):
                    self._answer(tag, message)
        except (OSError, ProtocolError):
            pass  # it has ended, or the sandbox says what is no 9P
        finally:
            self.close()  # a reply that nobody takes would hold the lock
            self._sock.close()
            with self._lock:
                _driven(self._service.end())
            self._unsent.put(b"")

    def _answer(self, tag: int, message: Message) -> None:
        with self._lock:
            reply = _driven(self._service.answer(tag, message))
            if reply is not None:
                with suppress(OSError):
                    self._sock.sendall(reply.encode(tag), socket.MSG_NOSIGNAL)

    def _send_later(self, tag: int, reply: Message) -> None:
        """From any thread of the caller's, which waits for no sandbox."""
        self._unsent.put(reply.encode(tag))

    def _write(self) -> None:
        while data := self._unsent.get():
            with self._lock, suppress(OSError):
                self._sock.sendall(data, socket.MSG_NOSIGNAL)


def _driven(coro: Any) -> Any:
    """What a coroutine gives in which nothing waits."""
    try:
        coro.send(None)
    except StopIteration as end:
        return end.value
    coro.close()
    raise RuntimeError("what is served waits for something")


class Connection:
    """A connection that a program in a sandbox has made, with what is known of who made it."""

    def __init__(self, sock: socket.socket, told: Told) -> None:
        self.socket = sock
        """A stream: the program's bytes."""
        self.told = told

    def recv(self, size: int) -> bytes:
        """Up to so many bytes; none: there are no more."""
        return self.socket.recv(size)

    def sendall(self, data: bytes) -> None:
        """All of it. Raises: OSError once the program does not take it."""
        self.socket.sendall(data, socket.MSG_NOSIGNAL)


class Listening:
    """Serves connections: an accepting thread, and one for each."""

    def __init__(self, sock: socket.socket, handlers: Mapping[Place, Handler]) -> None:
        self._sock = sock
        self._handlers = handlers
        self._places = threading.Semaphore(CONNECTIONS)
        threading.Thread(target=self._accept, name="runsc-listening", daemon=True).start()

    def close(self) -> None:
        """Nobody is served any more; connections go on."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._sock:
            while True:
                self._places.acquire()
                try:
                    came, _ = self._sock.accept()
                except OSError as error:
                    if error.errno not in LATER:
                        return  # it is closed
                    self._places.release()
                    time.sleep(LATER_S)
                else:
                    self._begin(came)

    def _begin(self, came: socket.socket) -> None:
        thread = threading.Thread(
            target=self._served, args=(came,), name="runsc-connection", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # clone(2): EAGAIN
            came.close()
            self._places.release()
            time.sleep(LATER_S)

    def _served(self, came: socket.socket) -> None:
        try:
            self._serve(came)
        finally:
            self._places.release()

    def _serve(self, came: socket.socket) -> None:
        with came:
            try:
                came.settimeout(LINE_S)
                line = bytearray()
                while not line.endswith(b"\n") and len(line) < MAX_LINE:
                    more = came.recv(1)
                    if not more:
                        return
                    line += more
                came.settimeout(None)
                told = told_of(bytes(line))
                handler = handler_of(self._handlers, told)
                if handler is not None:
                    handler(Connection(came, told))
            except (ConnectionError, TimeoutError):
                pass  # the program does not listen any more
            except Exception:
                log.exception("a connection that is served")
