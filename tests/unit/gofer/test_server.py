"""The loop, and what is left of its beginning."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from gofer import server as server_module
from gofer.server import Server
from tests.unit.gofer.harness import spawn

FORGOTTEN = """
import ctypes, re
from gofer.native import forget_code

ctypes.CDLL("libresolv.so.2")  # nothing here calls it
CODE = re.compile(r"(\\w+)-(\\w+) r-xp .*/libresolv")

def code():
    with open("/proc/self/smaps") as file:
        lines = iter(file)
        place = next(found for found in map(CODE.match, lines) if found)
        kib = next(line for line in lines if line.startswith("Rss:")).split()[1]
    start, end = (int(each, 16) for each in place.groups())
    return start, end - start, int(kib)

start, size, _ = code()
before = ctypes.string_at(start, size)
assert code()[2] > 0
forget_code()
assert code()[2] == 0
assert ctypes.string_at(start, size) == before
"""


def test_code_that_is_forgotten_is_not_in_memory_and_comes_back() -> None:
    subprocess.run([sys.executable, "-c", FORGOTTEN], check=True)


def test_code_is_forgotten_once_after_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()

    def serve() -> None:
        ours.close()
        server = Server([])
        server.add(theirs)
        server.run()

    monkeypatch.setattr(server_module, "BEGINNING_S", 0.01)
    monkeypatch.setattr(server_module, "forget_code", lambda: os.write(writer, b"\0"))
    pid = spawn(serve)
    theirs.close()
    os.close(writer)
    with open(reader, "rb", buffering=0) as told:
        assert told.read(1) == b"\0"
        ours.close()
        assert told.read() == b""
    assert os.waitpid(pid, 0)[1] == 0
