"""Hears of programs that are killed because memory has run out: from the sandbox, at once.

What the host's kernel kills is found when the container has ended: then there is somebody to tell.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from runsc.shim.loop import READ, Loop, Timer
from sentry.control.protocol import LineBuffer, Reply, Request, decode, encode

APART_S: Final = 0.1
"""Kills are told no faster, whatever a sandbox says."""
AGAIN_S: Final = 0.5
"""After which is asked again who took no question, or has not answered one."""


class Watch:
    """Of one container, from its start to its end."""

    def __init__(self, loop: Loop, path: str, on_kill: Callable[[], None]) -> None:
        self._loop = loop
        self._path = path
        self._on_kill = on_kill
        self._sock: socket.socket | None = None
        self._next: Timer | None = None
        self.known = 0
        self._ask()

    def _ask(self) -> None:
        self._next = None
        try:
            sock = self._asked()
        except (FileNotFoundError, ConnectionRefusedError):  # it has ended, or has been deleted
            return
        except OSError:  # too many ask, or no descriptor is left
            self._next = self._loop.after(AGAIN_S, self._ask)
            return
        self._sock = sock
        self._lines = LineBuffer()
        self._loop.watch(sock.fileno(), READ, self._ready)

    def _asked(self) -> socket.socket:
        """A connection with the question. Raises: OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = -1
        try:
            folder = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(self._path)}")
            sock.sendall(encode(Request("oom", oom_kills=self.known)))
        except BaseException:
            sock.close()
            raise
        finally:
            if folder >= 0:
                os.close(folder)
        return sock

    def _ready(self, _: int) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(1 << 16)
            lines = self._lines.feed(data)
            replies = [decode(line, Reply) for line in lines]
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, replies = b"", []
        if data and not replies:
            return
        self.end()
        if not replies:
            self._next = self._loop.after(AGAIN_S, self._ask)
        for reply in replies:
            if reply.stats is not None and reply.stats.oom_kills > self.known:
                self.known = reply.stats.oom_kills
                self._on_kill()
                self._next = self._loop.after(APART_S, self._ask)
                return

    def finish(self) -> None:
        """What it has said before its end."""
        self._ready(READ)
        self.end()

    def end(self) -> None:
        """Hear no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
