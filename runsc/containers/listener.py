"""The control socket of a container: made by `create`, asked by the other commands."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Sequence

from runsc.containers import asking
from sentry.control.protocol import LineBuffer, Reply, Request, decode, encode


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, which may be longer than sun_path (unix(7)) allows."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where = f"/proc/self/fd/{directory}/{os.path.basename(path)}"
        sock.bind(where)
        os.chmod(where, 0o600)  # whatever the umask is; nobody can connect before the next line
        sock.listen(16)
        sock.setblocking(False)  # for the Sentry, which may not change that
        return sock
    finally:
        os.close(directory)


def connect(path: str, patience_s: float = asking.CONNECT_S) -> socket.socket:
    """Connect to it. Raises: OSError (TimeoutError too)."""
    return socket.socket(fileno=asking.connect(path, patience_s).detach())


def ask(path: str, request: Request, patience_s: float, fds: Sequence[int] = ()) -> Reply:
    """One question to a sandbox, which is not trusted: nothing it does takes longer.

    `fds` go with it.

    Raises: OSError (TimeoutError too), ValueError.
    """
    with connect(path, min(patience_s, asking.CONNECT_S)) as sock:
        return ask_over(sock, request, patience_s, fds)


def ask_over(
    sock: socket.socket, request: Request, patience_s: float, fds: Sequence[int] = ()
) -> Reply:
    """The same over a connection that there is; math.inf: as long as it takes."""
    deadline = time.monotonic() + patience_s
    _be_patient(sock, patience_s)
    send(sock, request, fds)
    return answer(sock, deadline - time.monotonic())


def send(sock: socket.socket, request: Request, fds: Sequence[int] = ()) -> None:
    """The question alone. Raises: OSError."""
    data = encode(request)
    sent = socket.send_fds(sock, [data], fds) if fds else 0
    if sent < len(data):  # who has all of it may have answered and gone: no bytes are EPIPE then
        sock.sendall(data[sent:])


def answer(sock: socket.socket, patience_s: float) -> Reply:
    """One reply to what has been sent. Raises: as `ask`."""
    deadline = time.monotonic() + patience_s
    lines = LineBuffer()
    while True:
        _be_patient(sock, deadline - time.monotonic())
        data = sock.recv(1 << 16)
        if time.monotonic() > deadline:
            raise TimeoutError
        if not data:
            raise ConnectionResetError("the sandbox has ended")
        for line in lines.feed(data):
            return decode(line, Reply)


def _be_patient(sock: socket.socket, seconds: float) -> None:
    sock.settimeout(None if seconds == math.inf else min(max(seconds, 0.001), asking.LONGEST_S))
