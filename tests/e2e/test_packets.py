"""`runsc debug --packets`: what goes by a container's interfaces, read back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.own_stack import inside_of, outside_of
from tests.e2e.pcapng import Interface, Packet, Read
from tests.e2e.talker import Talker
from tests.e2e.test_own_stack import INSIDE, OUTSIDE

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="needs /dev/kvm"),
]
LOOPBACK = """
import socket, sys
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
a.bind(("127.0.0.1", 7))
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
b.bind(("127.0.0.1", 9))
print("ready", flush=True)
for line in sys.stdin:
    b.sendto(line.strip().encode(), ("127.0.0.1", 7))
    a.recv(99)
    print("sent", flush=True)
"""


def begun(client: Client, *args: str) -> subprocess.Popen[bytes]:
    """The command, which looks soon after it has written what every file begins with."""
    return subprocess.Popen(
        client.command("debug", "--packets", *args), stdout=subprocess.PIPE, bufsize=0
    )


def payloads(found: Read, interface: int = 0) -> list[bytes]:
    """Of UDP over IPv4."""
    return [
        each.data[42:] for each in found.packets
        if each.interface == interface and each.data[12:14] == b"\x08\0" and each.data[23] == 17
    ]  # fmt: skip


def seen_by(looking: subprocess.Popen[bytes], say: Talker) -> bytes:
    """Something is sent until the first frame is seen: from then on it sees all."""
    assert looking.stdout is not None
    data = looking.stdout.read(1)
    os.set_blocking(looking.stdout.fileno(), False)
    while b"first" not in data:
        say.say("first")
        say.hear()
        data += looking.stdout.read(1 << 20) or b""
    os.set_blocking(looking.stdout.fileno(), True)
    return data


def test_loopback_is_seen_live_and_the_file_is_whole_after_an_interrupt(
    tmp_path: Path, debian: Path
) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", LOOPBACK)
    client, path = Client(bundle), bundle.write()
    inside = Talker(client.command("--network=none", "run", f"--bundle={path}", "c"))
    assert inside.hear() == "ready"
    looking = begun(client, "-", "--interface=lo", "c")
    data = seen_by(looking, inside)
    for number in range(100):
        inside.say(str(number))
        inside.hear()
    looking.send_signal(signal.SIGINT)
    assert looking.stdout is not None
    found = Read(data + looking.stdout.read())

    assert looking.wait() == 0
    assert found.interfaces == [Interface("lo", 1)]
    assert [each for each in payloads(found) if each != b"first"] == [
        str(number).encode() for number in range(100)
    ]
    assert found.statistics == {0: (len(found.packets), 0)}
    looking.stdout.close()
    assert "eth7" in client.error("debug", "--packets", "/dev/null", "--interface=eth7", "c")
    inside.end()


def test_end_of_the_container_ends_it(tmp_path: Path, debian: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", LOOPBACK)
    client, path = Client(bundle), bundle.write()
    inside = Talker(client.command("--network=none", "run", f"--bundle={path}", "c"))
    assert inside.hear() == "ready"
    looking = begun(client, "-", "c")
    data = seen_by(looking, inside)
    inside.end()
    assert looking.stdout is not None
    found = Read(data + looking.stdout.read())
    assert looking.wait() == 0 and payloads(found) and found.statistics
    looking.stdout.close()


def test_who_does_not_read_loses_frames_and_holds_nobody_up(tmp_path: Path, debian: Path) -> None:
    bundle = Bundle(tmp_path / "bundle", debian).args("python3", "-uc", LOOPBACK)
    client, path = Client(bundle), bundle.write()
    inside = Talker(client.command("--network=none", "run", f"--bundle={path}", "c"))
    assert inside.hear() == "ready"
    looking = begun(client, "-", "c")
    data = seen_by(looking, inside)
    looking.send_signal(signal.SIGSTOP)
    for _ in range(6000):
        inside.say("x")
    for _ in range(6000):
        assert inside.hear() == "sent"
    looking.send_signal(signal.SIGINT)
    looking.send_signal(signal.SIGCONT)
    assert looking.stdout is not None
    found = Read(data + looking.stdout.read())
    seen, lost = found.statistics[0]

    assert looking.wait() == 0
    assert seen == len(found.packets) + lost and lost > 0
    looking.stdout.close()
    inside.end()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_interface_of_a_stack_of_its_own_is_seen_both_ways_in_a_file(
    tmp_path: Path, debian: Path
) -> None:
    file = tmp_path / "seen.pcapng"
    with (
        outside_of(OUTSIDE) as outside,
        inside_of(INSIDE, tmp_path, debian, outside, "--network=sandbox") as inside,
    ):
        looking = begun(inside.client, str(file), "--interface=eth0", "c")
        while not file.exists() or len(Read(file.read_bytes()).packets) < 2:
            outside.do("ping('10.9.0.2', 10)")
        looking.send_signal(signal.SIGTERM)
        assert looking.wait() == 0
        assert looking.stdout is not None
        looking.stdout.close()
    found = Read(file.read_bytes())
    echoes: list[Packet] = [each for each in found.packets if each.data[23:24] == b"\x01"]

    assert found.interfaces == [Interface("eth0", 1)]
    assert {(each.outgoing, each.data[34]) for each in echoes} == {(False, 8), (True, 0)}
    assert file.stat().st_mode & 0o077 == 0
