"""One question to a sandbox, over its control socket, as most commands have one.

For what every command imports: without `socket`, msgspec and the structs of the protocol, which
cost more than the question. Requests are written by hand, and an answer that is not the plain "it
is done" is the protocol's. See listener.py for everything else.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sentry.control.protocol import Reply

DONE = b"{}"
"""A reply without anything."""
CHUNK = 1 << 16
LINE_MAX = 16 << 20
"""Of an answer. The sandbox is not trusted."""
CONNECT_S = 10.0
"""For a place among those that the sandbox has not accepted yet: 17 are enough to fill it."""
LONGEST_S = 2_000_000.0
"""For which anything is waited at a time: poll(2) counts 31 bits of milliseconds."""
LEFT_OUT = {"pid": 1, "all": False}
"""What a request need not say."""


class Ended(ConnectionResetError):
    """The sandbox has ended after it had read the question: before, the host says ECONNRESET."""


class Outbox:
    """What a sandbox is told by the way: nobody waits until it reads. The same is owed once."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self.owed: dict[bytes, None] = {}
        """Lines, in their order."""

    def tell(self, text: bytes) -> None:
        """Now, or by `flush` when the socket can be written to."""
        self.owed.pop(text, None)
        self.owed[text] = None
        self.flush()

    def flush(self) -> None:
        """A sandbox that has ended is told nothing."""
        while self.owed:
            text = next(iter(self.owed))
            try:
                self._sock.send(text, MSG_DONTWAIT | MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                self.owed.clear()
                return
            del self.owed[text]


def line(op: str, **numbers: int) -> bytes:
    """A request as sentry.control.protocol has it."""
    words = [f'"op":"{op}"']
    for name, value in numbers.items():
        if value != LEFT_OUT.get(name, 0):
            words.append(f'"{name}":{str(value).lower()}')
    return ("{" + ",".join(words) + "}\n").encode()


def connect(path: str, patience_s: float | None = CONNECT_S) -> Socket:
    """Through the directory, for the path may be longer than sun_path (unix(7)) allows. None: it
    may take as long as it likes.

    Raises: OSError (TimeoutError too).
    """
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = Socket(AF_UNIX, SOCK_STREAM)
    try:
        # What is not blocking is refused at once where there is no place: the host keeps the time.
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _timeval(patience_s))
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _timeval(None))
    except BlockingIOError:
        sock.close()
        raise TimeoutError("the sandbox accepts no connection") from None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def _timeval(seconds: float | None) -> bytes:
    """struct timeval; zeros: without an end."""
    us = 0 if seconds is None else max(1, int(seconds * 1_000_000))
    whole, rest = divmod(us, 1_000_000)
    return whole.to_bytes(8, "little") + rest.to_bytes(8, "little")


def tell(path: str, request: bytes, patience_s: float | None) -> str:
    """Ask for something to be done: what went wrong, "" if nothing did.

    Raises: OSError (TimeoutError too), ValueError.
    """
    sock = connect(path, CONNECT_S if patience_s is None else min(patience_s, CONNECT_S))
    try:
        answer = answer_to(sock, request, patience_s)
    finally:
        sock.close()
    return "" if answer == DONE else reply(answer).error


def answer_to(sock: Socket, request: bytes, patience_s: float | None) -> bytes:
    """A line, whatever the sandbox does within so long; None: as long as it takes.

    Raises: as `tell`.
    """
    deadline = None if patience_s is None else monotonic() + patience_s
    sock.settimeout(patience_s)
    sock.sendall(request, MSG_NOSIGNAL)
    received = bytearray()
    while True:
        data = sock.recv(CHUNK)
        if not data:
            raise Ended("the sandbox has ended")
        received += data
        if b"\n" in data:
            return bytes(received.partition(b"\n")[0])
        if len(received) > LINE_MAX:
            raise ValueError("line too long")
        if deadline is not None:
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)


def reply(answer: bytes) -> Reply:
    """What an answer says. Raises: ValueError."""
    from sentry.control import protocol  # noqa: PLC0415  for what is not plain

    return protocol.decode(answer, protocol.Reply)
