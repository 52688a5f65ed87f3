"""read: a file of a container, without a program of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle
from tests.e2e.client import Client


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    made = Client(bundle.args("sleep", "1000"), platform)
    made.create("c")
    yield made
    made.call("delete", "--force", "c")


def test_files_of_the_root_and_of_the_kernel_are_shown(client: Client) -> None:
    passwd = (client.bundle.rootfs / "etc" / "passwd").read_text()

    assert client.ok("read", "c", "/etc/passwd") == passwd
    assert client.ok("read", "--size", "4", "c", "etc/passwd") == passwd[:4]
    assert client.ok("read", "c", "/proc/1/comm") == "sleep\n"
    assert "ENOENT" in client.error("read", "c", "/none")
    assert "EISDIR" in client.error("read", "c", "/etc")


def test_much_comes_until_somebody_has_enough(client: Client) -> None:
    assert len(client.ok("read", "--size=1000000", "c", "/dev/zero")) == 1_000_000
    with subprocess.Popen(
        client.command("read", "c", "/dev/zero"), stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as running:
        assert running.stdout is not None
        assert running.stdout.read(300_000) == bytes(300_000)
        running.stdout.close()
        assert running.wait(TIMEOUT_S) == 0
    assert client.state("c")["status"] == "created"
