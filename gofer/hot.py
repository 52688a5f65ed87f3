"""The requests that are answered in C (hot.c), and what they need to know of sessions and fids.

Creations and removals of files come in crowds, and somebody waits for each. Where nothing
is unusual the wait for events answers them itself; whatever else comes, Python gets with the bytes
that were read. A directory is known there from the first such request on, which Python answered.

What is known there cannot be wrong: nothing of a session while something of it is under way, and
nothing of any directory since one lost a fid or its descriptor, or something in it got a fid, which
has to know when its name is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gofer._native import ffi, lib
from gofer.native import check

if TYPE_CHECKING:
    from gofer.node import Node

_RECEIVE = 65536
_events = ffi.new("int[]", 2 * lib.HOT_EVENTS)
_data = ffi.new("uint8_t[]", _RECEIVE)
_data_view = ffi.buffer(_data)


class Hot:
    """What C knows of the sessions of a server."""

    def __init__(self) -> None:
        self.known = ffi.new("struct hot *")
        """For other functions of C."""
        self._rest = ffi.new("struct hot_rest *")
        self._nodes: list[Node] = []
        """Those that are known there."""

    def wait(self, epoll: int, timeout_ms: int) -> list[tuple[int, int]]:
        """Descriptors and their events, answering what can be. See `came` and `owed`."""
        count = check(
            lib.hot_wait(self.known, epoll, timeout_ms, _events, _data, _RECEIVE, self._rest)
        )
        return [(_events[2 * at], _events[2 * at + 1]) for at in range(count)]

    def came(self) -> bytes:
        """What was read from the first descriptor of the last wait, or nothing."""
        count, self._rest.came = self._rest.came, 0
        return _data_view[:count] if count else b""

    def owed(self) -> tuple[bytes, tuple[int, ...]]:
        """The rest of a reply that its socket did not take, and what descriptor goes with it."""
        count, self._rest.owed = self._rest.owed, 0
        if not count:
            return b"", ()
        fd = self._rest.donated
        return ffi.buffer(self._rest.reply, count)[:], (fd,) if fd >= 0 else ()

    def ready(self, sock: int, is_ready: bool) -> None:
        """Whether nothing of this session is under way."""
        lib.hot_ready(self.known, sock, is_ready)

    def near(self, sock: int, cpu: int) -> None:
        """The client waits for its replies on this CPU, or (NOCPU) does not."""
        lib.hot_near(self.known, sock, cpu)

    def roam(self) -> None:
        """For another thread than that which waits."""
        lib.hot_roam(self.known)

    def forget(self, sock: int) -> None:
        """The session ends."""
        lib.hot_forget(self.known, sock)

    def learn(self, sock: int, fid: int, node: Node) -> None:
        """`fid` is this directory, which may be written in, and was a moment ago."""
        at = node.fd, node.attachment.fd, bool(node.children)
        known = node.fd >= 0 and lib.hot_learn(self.known, sock, fid, *at)
        if known and not node.hot:
            node.hot = True
            self._nodes.append(node)

    def changed(self, node: Node) -> None:
        """One of its fids goes, its descriptor is closed, or something in it gets a fid."""
        if not node.hot:
            return
        lib.hot_forget_directories(self.known)
        for each in self._nodes:
            each.hot = False
        self._nodes.clear()
