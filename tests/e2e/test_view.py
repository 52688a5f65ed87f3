"""What somebody finds who enters the mount namespace of a container's stand-in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.client import Client

pytestmark = pytest.mark.root


@pytest.fixture
def client(bundle: Bundle, platform: str) -> Iterator[Client]:
    bundle.args("sleep", "1000")
    made = Client(bundle, platform)
    yield made
    made.ok("delete", "--force", "c")


@pytest.fixture
def kept(client: Client, tmp_path: Path) -> Client:
    """What is written to its root directory is on the host."""
    root = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc", "sys", "t"):
        (root / name).mkdir(parents=True)
    busybox = client.bundle.rootfs / "bin" / "busybox"
    (root / "bin" / "busybox").write_bytes(busybox.read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    client.bundle.document["root"] = {"path": str(root)}
    client.bundle.args("/bin/busybox", "sleep", "1000")
    client.flags.append("--overlay2=none")
    return client


def _bind(source: Path, destination: str, *options: str) -> dict[str, object]:
    return {"destination": destination, "source": str(source), "options": ["bind", *options]}


def _numbers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.isdigit()]


def test_beside_a_layer_in_memory_there_is_the_stand_in_alone(client: Client) -> None:
    pid = client.create("c")
    root = Path(f"/proc/{pid}/root")

    assert os.listdir(root) == ["proc"]
    assert _numbers(root / "proc") == ["1"]
    assert (root / "proc/1/cmdline").read_bytes() == b"runsc: c\0"
    assert not (root / "proc/sys").exists()
    with pytest.raises(OSError, match="Read-only file system"):
        (root / "file").touch()
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    assert sorted(line.split()[0] for line in mounts) == ["proc", "runsc-empty"]


def test_without_a_pid_namespace_of_its_own_nothing(client: Client) -> None:
    client.bundle.document["linux"]["namespaces"] = [{"type": "network"}]

    pid = client.create("c")

    assert os.listdir(f"/proc/{pid}/root") == []


def test_root_that_is_kept_and_its_bind_mounts(kept: Client, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("of the host\n")
    kept.bundle.document["mounts"] += [
        _bind(tmp_path / "volume", "/new/volume"),
        _bind(tmp_path / "volume", "/ro", "ro"),
        _bind(tmp_path / "file", "/etc/file"),
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
    ]
    pid = kept.create("c")
    kept.ok("start", "c")
    root = Path(f"/proc/{pid}/root")
    inside = ("exec", "c", "/bin/busybox")

    kept.ok(*inside, "sh", "-c", "echo one >/etc/made; echo two >/new/volume/made; echo x >/t/x")
    (root / "etc/given").write_text("three\n")
    (root / "new/volume/given").write_text("four\n")

    assert (root / "etc/made").read_text() + (root / "ro/made").read_text() == "one\ntwo\n"
    given = kept.ok(*inside, "cat", "/etc/given", "/new/volume/given", "/etc/file")
    assert given == "three\nfour\nof the host\n"
    for place in ("ro", "t", "dev", "proc/1"):
        with pytest.raises(OSError, match=r"Read-only file system|No such file|not permitted"):
            (root / place / "file").touch()
    assert os.listdir(root / "t") == os.listdir(root / "dev") == []


def test_places_of_mounts_have_their_modes_whatever_the_umask(
    kept: Client, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "volume").mkdir()
    kept.bundle.document["mounts"] += [
        _bind(tmp_path / "volume", "/new/a/volume"),
        {"destination": "/new/any", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/new/own", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]},
    ]
    request.addfinalizer(partial(os.umask, os.umask(0o077)))
    kept.create("c")
    kept.ok("start", "c")

    places = ("/new", "/new/a", "/new/any", "/new/own")
    modes = kept.ok("exec", "c", "/bin/busybox", "stat", "-c", "%a", *places)

    assert modes.split() == ["755", "755", "1777", "700"]


def test_nothing_in_it_is_executed(kept: Client) -> None:
    pid = kept.create("c")

    with pytest.raises(PermissionError):
        subprocess.run([f"/proc/{pid}/root/bin/busybox", "true"], check=False)


def test_links_of_the_container_lead_nowhere_else(kept: Client, tmp_path: Path) -> None:
    root = Path(kept.bundle.document["root"]["path"])
    (tmp_path / "volume").mkdir()
    (tmp_path / "outside").mkdir()
    (root / "to").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("../../../../.." + str(tmp_path / "outside"))
    kept.bundle.document["mounts"] += [
        _bind(tmp_path / "volume", "/to/a"), _bind(tmp_path / "volume", "/up/b"),
    ]  # fmt: skip

    kept.create("c")

    assert os.listdir(tmp_path / "outside") == []
    assert sorted(os.listdir(str(root) + str(tmp_path / "outside"))) == ["a", "b"]


def test_what_the_host_unmounts_is_not_held(kept: Client, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    below = volume / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "--bind", volume, volume], check=True)
    subprocess.run(["mount", "--make-shared", volume], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        kept.bundle.document["mounts"].append(_bind(volume, "/v", "rbind", "rslave"))
        pid = kept.create("c")
        assert f"{volume}" not in Path(f"/proc/{pid}/mounts").read_text()
        assert not os.path.ismount(f"/proc/{pid}/root/v/below")
    finally:
        subprocess.run(["umount", below], check=True)
        subprocess.run(["umount", volume], check=True)


def test_root_that_can_only_be_read_is_shown(kept: Client) -> None:
    """Nothing is made in it, not even where mounts are to go; but /proc needs a place."""
    root = Path(kept.bundle.document["root"]["path"])
    kept.bundle.document["root"]["readonly"] = True
    kept.bundle.document["mounts"].append({"destination": "/new/t", "type": "tmpfs"})
    before = sorted(root.rglob("*"))
    for shown in (True, False):
        seen = Path(f"/proc/{kept.create('c')}/root")
        assert (seen / "bin" / "busybox").exists() is shown
        assert _numbers(seen / "proc") == ["1"]
        assert kept.ok("exec", "c", "/bin/busybox", "ls", "/new") == "t\n"
        assert sorted(root.rglob("*")) == before
        kept.ok("delete", "--force", "c")
        if shown:
            (root / "proc").rmdir()
            before.remove(root / "proc")
    kept.create("c")
