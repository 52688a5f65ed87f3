"""What the host mounts below a bind mount later: with rslave it is there, else not."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.bundle import TIMEOUT_S, Bundle
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SHARED = 'mount -t tmpfs none "$0" && mount --make-shared "$0" && mkdir -p "$0/sub" && exec "$@"'
SHELL = 'while read -r line; do eval "$line" 2>&1; echo end; done'


class Pair:
    """A sandbox with a folder of the host on /folder, in a mount namespace of the test's own."""

    def __init__(self, folder: Path, bundle: Bundle, platform: str) -> None:
        self._folder = folder
        command = bundle.args("sh", "-c", SHELL).command(platform)
        apart = ["unshare", "--mount", "--propagation=private"]
        self._inside = Talker([*apart, "sh", "-c", SHARED, str(folder), *command])
        assert self.inside("echo up") == ["up"]

    def inside(self, line: str) -> list[str]:
        """What a command prints in the container."""
        self._inside.say(line)
        shown: list[str] = []
        while (heard := self._inside.hear()) != "end":
            assert self._inside.process.poll() is None
            shown.append(heard)
        return shown

    def outside(self, *command: str) -> None:
        """A command of the host, in the folder, which must succeed."""
        assert self.tried(*command) == ""

    def unmount(self) -> None:
        """Take it off, as soon as nobody uses it."""
        end = time.monotonic() + TIMEOUT_S
        while told := self.tried("umount", "sub"):
            assert time.monotonic() < end, told

    def tried(self, *command: str) -> str:
        """What is wrong with a command of the host; "" if it succeeds."""
        enter = ["nsenter", f"--mount=/proc/{self._inside.process.pid}/ns/mnt", "sh", "-ec"]
        done = subprocess.run(
            [*enter, 'cd "$0"; exec "$@"', str(self._folder), *command],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stderr if done.returncode else ""

    def end(self) -> None:
        self._inside.end()


@pytest.fixture
def pair(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Callable[[str], Pair]]:
    made: list[Pair] = []

    def make(*options: str) -> Pair:
        bundle = Bundle(tmp_path / "bundle", busybox)
        folder = tmp_path / "folder"
        folder.mkdir()
        bundle.document["mounts"].append(
            {"destination": "/folder", "source": str(folder), "options": list(options)}
        )
        made.append(Pair(folder, bundle, platform))
        return made[0]

    yield make
    for each in made:
        each.end()


@pytest.mark.parametrize("option", ["rslave", "rshared"])
def test_mount_of_the_host_comes_and_goes(pair: Callable[..., Pair], option: str) -> None:
    both = pair("rbind", option)
    assert both.inside("ls -a /folder/sub") == [".", ".."]

    both.outside("sh", "-c", "mount -t tmpfs none sub && echo later > sub/file && mkdir sub/dir")
    assert both.inside("cat /folder/sub/file; ls /folder/sub; ls /folder/sub/dir") == [
        "later", "dir", "file",
    ]  # fmt: skip
    assert both.inside("cd /folder/sub/dir; echo inside >new; cat new; cd /") == ["inside"]
    both.outside("grep", "-q", "inside", "sub/dir/new")

    both.unmount()
    assert both.inside("ls -a /folder/sub") == [".", ".."]


def test_mount_of_the_host_is_not_seen_unless_asked_for(pair: Callable[..., Pair]) -> None:
    both = pair("rbind", "rprivate")
    assert both.inside("ls /folder/sub") == []

    both.outside("sh", "-c", "mount -t tmpfs none sub && touch sub/file")

    assert both.inside("ls /folder/sub") == []


def test_mount_with_an_open_file_is_busy(pair: Callable[..., Pair]) -> None:
    both = pair("rbind", "rslave")
    both.outside("sh", "-c", "mount -t tmpfs none sub && echo text > sub/file")
    both.inside("exec 9</folder/sub/file")
    assert "busy" in both.tried("umount", "sub")

    both.inside("exec 9<&-")
    both.unmount()


def test_what_comes_later_may_not_lead_out(pair: Callable[..., Pair], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    both = pair("rbind", "rslave")

    made = "mount -t tmpfs none sub; ln -s ../../secret sub/link; mknod sub/null c 1 3"
    both.outside("sh", "-ec", made)

    assert "secret" not in both.inside("cat /folder/sub/link /folder/sub/../../secret")
    assert both.inside("echo x > /folder/sub/null && cat /folder/sub/null") == []
