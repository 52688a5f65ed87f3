"""The control socket of a container, for the other commands."""

from __future__ import annotations

import os
import socket


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, which may be longer than sun_path (unix(7)) allows."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        sock.listen(16)
        return sock
    finally:
        os.close(directory)


def connect(path: str) -> socket.socket:
    """Connect to it. Raises: OSError."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        return sock
    finally:
        os.close(directory)
