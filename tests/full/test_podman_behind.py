"""podman: what a container leaves, whose root is written behind, is what runc's leaves."""

from __future__ import annotations

import copy
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.podman import IMAGE, Podman, needs_podman
from tests.full.runtimes import RUNTIME, is_there

pytestmark = [
    pytest.mark.full, pytest.mark.root, needs_podman, is_there,
    pytest.mark.skipif(not RUNTIME.is_ours, reason="compares ours with runc"),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
]  # fmt: skip

SCRIPT = """
umask 022
mkdir -p /made/a/b /made/empty && cd /made || exit 1
for i in 1 2 3 4 5 6 7 8 9; do echo $i >a/f$i; done
ln a/f1 a/b/hard; ln -s ../a/f2 soft; mkfifo pipe
chmod 4750 a/f3; chmod 1777 empty; chown 1000:1001 a/f4; chown -h 5:6 soft
mv a/f5 a/b/moved; mv a/b c; rm a/f6; touch -d @1000000000 a/f7 a
rm /bin/yes; mv /bin/true /bin/falsehood; chmod 711 /bin/cat
echo more >>/etc/passwd; rm -r /etc/removed; mkdir /etc/removed; echo new >/etc/removed/x
mkdir /lower/new; mv /lower/sub /moved && echo moved; chmod 600 /lower/one; echo more >>/lower/two
i=0; while [ $i -lt 300 ]; do echo $i >t$i; rm t$i; i=$((i + 1)); done
"""
"""Changes of both layers; the image's /lower has a file of two names."""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    folder = tmp_path_factory.mktemp("behind")
    root = folder / "root"
    shutil.copytree(busybox, root, symlinks=True)
    (root / "etc" / "removed").mkdir(parents=True)
    (root / "etc" / "removed" / "old").touch()
    (root / "lower" / "sub" / "deep").mkdir(parents=True)
    (root / "lower" / "one").write_text("one\n")
    (root / "lower" / "two").hardlink_to(root / "lower" / "one")
    made = Podman(folder, root)
    yield made
    made.end()


def over_runc(podman: Podman) -> Podman:
    """The same storage."""
    found = copy.copy(podman)
    kept = [part for part in podman.command if not part.startswith("--runtime")]
    found.command = [*kept, "--runtime=runc"]
    return found


def left(podman: Podman, name: str) -> tuple[str, list[str], dict[str, object]]:
    """What a container says, what `diff` says of it, and what is in its root file system."""
    ran = podman.call("run", f"--name={name}", "--network=none", IMAGE, "sh", "-c", SCRIPT)
    assert ran.returncode == 0, ran.stderr
    shown = sorted(podman.ok("diff", name).splitlines())
    export = [*podman.command, "export", name]
    data = subprocess.run(export, capture_output=True, check=True).stdout
    files: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            found = tar.extractfile(member) if member.isreg() else None
            owner = member.mode, member.uid, member.gid
            data = b"" if found is None else found.read()
            files[member.name] = member.type, member.linkname, *owner, data
    podman.remove(name)
    return ran.stdout, shown, files


def test_container_leaves_what_that_of_runc_leaves(podman: Podman) -> None:
    wanted = left(over_runc(podman), "native")
    got = left(podman, "behind")
    assert got[:2] == wanted[:2]
    assert got[2] == wanted[2]


def test_copied_into_a_running_container_is_seen_and_diff_shows_what_exec_did(
    podman: Podman, tmp_path: Path
) -> None:
    """`podman cp` writes into the root from outside, over what the container has looked at."""
    (tmp_path / "passwd").write_text("copied\n")
    podman.ok("run", "--name=seen", "--network=none", "--detach", IMAGE, "sleep", "1000")
    look = "ls -lR / >/dev/null 2>&1; cat /etc/passwd /new 2>&1; touch /etc/mine"
    assert "copied" not in podman.ok("exec", "seen", "sh", "-c", look)
    podman.ok("cp", str(tmp_path / "passwd"), "seen:/etc/passwd")
    podman.ok("cp", str(tmp_path / "passwd"), "seen:/new")
    wait = "until [ $(cat /etc/passwd) = copied ] && cat /new; do :; done"
    seen = podman.ok("exec", "seen", "timeout", "60", "sh", "-c", wait)
    assert seen == "copied"
    podman.ok("exec", "seen", "rm", "/new", "/bin/yes")
    shown = podman.ok("diff", "seen").splitlines()
    assert "D /bin/yes" in shown
    assert not any("/new" in line for line in shown)
    podman.remove("seen")
