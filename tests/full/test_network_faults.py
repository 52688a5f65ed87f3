"""Frames of a network of the sandbox's own that are lost, late, or out of order, by rules."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import made

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
NAME = f"faults{os.getpid()}"
HOST, GUEST = "10.77.13.1", "10.77.13.2"
COUNT = 20
ASK = f"""
import json, socket, time
asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asks.settimeout(1)
asks.connect(("{HOST}", 9999))
began, found = time.monotonic(), []
for number in range({COUNT}):
    asks.send(b"%d" % number)
try:
    while len(found) < {COUNT}:
        found.append(int(asks.recv(9)))
except TimeoutError:
    pass
print(json.dumps([found, time.monotonic() - began]))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network of two, with an echo at the host's end."""
    for line in (
        f"netns add {NAME}",
        f"link add h{NAME[-8:]} type veth peer name g0 netns {NAME}",
        f"addr add {HOST}/24 dev h{NAME[-8:]}",
        f"link set h{NAME[-8:]} up",
        f"-n {NAME} addr add {GUEST}/24 dev g0",
        f"-n {NAME} link set g0 up",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind((HOST, 9999))

    def answer() -> None:
        with suppress(OSError):
            while True:
                data, who = echo.recvfrom(100)
                if not data:
                    return
                echo.sendto(data, who)

    thread = threading.Thread(target=answer)
    thread.start()
    yield f"/run/netns/{NAME}"
    echo.sendto(b"", (HOST, 9999))
    thread.join()
    echo.close()
    subprocess.run(["ip", "netns", "del", NAME], check=True)


def test_frames_are_lost_late_and_out_of_order(
    tmp_path: Path, debian: Path, namespace: str
) -> None:
    with made(tmp_path, debian, network=namespace) as sandbox:

        def asked() -> tuple[list[int], float]:
            found, took_s = json.loads(sandbox.commands.run(["python3", "-c", ASK]).stdout)
            return found, took_s

        every = list(range(COUNT))
        assert asked()[0] == every
        sandbox.inject("network: loss, probability=0.5, direction=out, seed=1")
        first = asked()[0]
        assert 0 < len(first) < COUNT
        assert sandbox.faults()[0].injected
        sandbox.inject("network: delay=100ms")
        found, took_s = asked()
        assert found == every
        assert took_s >= 0.2
        sandbox.inject("network: reorder, probability=0.3")
        found, _ = asked()
        assert found != every
        assert sorted(found) == every
        sandbox.inject()
        assert asked()[0] == every
