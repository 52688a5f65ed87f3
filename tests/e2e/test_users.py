"""User namespaces: whose ids on the host those of a container are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle, Document
from tests.e2e.client import Client

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
FIRST = 100_000
MAP = {"containerID": 0, "hostID": FIRST, "size": 65536}


RIGHTS = ["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]


def _mapped(document: Document, path: str = "") -> None:
    linux = document["linux"]
    for kind in ("bounding", "effective", "permitted"):
        document["process"]["capabilities"][kind] += RIGHTS
    if path:
        linux["namespaces"].append({"type": "user", "path": path})
        return
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [MAP]


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A folder of the container's root on the host, on /data."""
    made = tmp_path / "data"
    made.mkdir()
    os.chown(made, FIRST, FIRST)
    mount = {"destination": "/data", "source": str(made), "options": ["rbind"]}
    bundle.document["mounts"].append(mount)
    return made


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def test_owners_are_translated_both_ways(bundle: Bundle, platform: str, folder: Path) -> None:
    (folder / "old").touch()
    os.chown(folder / "old", FIRST + 3, FIRST + 4)
    script = (
        "cd /data; echo new >new; chown 5:6 new; stat -c '%u %g' old new;"
        "mkdir made; ln -s x link; exec 3<>new; echo more >&3; stat -c '%u %g' new"
    )
    bundle.configure(_mapped).args("sh", "-c", script)

    result = bundle.run(platform)

    assert result.stdout.splitlines() == ["3 4", "5 6", "5 6"], result.stderr
    assert _owner(folder / "new") == (FIRST + 5, FIRST + 6)
    assert _owner(folder / "made") == (FIRST, FIRST)
    assert (folder / "link").lstat().st_uid == FIRST


def test_files_of_others_are_nobodys_and_stay_shut(
    bundle: Bundle, platform: str, folder: Path
) -> None:
    (folder / "private").write_text("of the host's root\n")
    (folder / "private").chmod(0o600)
    (folder / "open").write_text("for all\n")
    script = "cd /data; stat -c '%u %g' private; cat open private; chmod 666 private; echo x >open"
    bundle.configure(_mapped).args("sh", "-c", script)

    result = bundle.run(platform)

    assert result.stdout.splitlines() == ["65534 65534", "for all"]
    assert "'private': Permission denied" in result.stderr
    assert stat.S_IMODE((folder / "private").stat().st_mode) == 0o600
    assert (folder / "open").read_text() == "for all\n"


def test_id_that_the_host_has_no_name_for_owns_nothing(
    bundle: Bundle, platform: str, folder: Path
) -> None:
    bundle.configure(_mapped).args("sh", "-c", "touch /data/f; chown 70000 /data/f")

    result = bundle.run(platform)

    assert "Invalid argument" in result.stderr
    assert _owner(folder / "f") == (FIRST, FIRST)


def test_map_is_seen_inside_and_by_engines(bundle: Bundle, platform: str) -> None:
    client = Client(bundle.configure(_mapped).args("sleep", "1000"), platform)
    pid = client.create("c")
    client.ok("start", "c")

    inside = client.ok("exec", "c", "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    outside = Path(f"/proc/{pid}/uid_map").read_text().split()

    assert inside == ["0", str(FIRST), "65536"] * 2
    assert outside == ["0", str(FIRST), "65536"]
    assert os.stat(f"/proc/{pid}").st_uid == FIRST
    client.ok("delete", "--force", "c")


def test_namespace_of_another_container_is_joined(
    bundle: Bundle, platform: str, folder: Path, tmp_path: Path
) -> None:
    first = Client(bundle.configure(_mapped).args("sleep", "1000"), platform)
    pid = first.create("c")
    second = Bundle(tmp_path / "second", bundle.rootfs)
    second.document["mounts"].append(bundle.document["mounts"][-1])
    for each in second.document["linux"]["namespaces"]:
        if each["type"] in ("network", "ipc"):
            each["path"] = f"/proc/{pid}/ns/{each['type'].replace('network', 'net')}"
    second.configure(lambda document: _mapped(document, f"/proc/{pid}/ns/user"))
    second.args("sh", "-c", "cat /proc/self/uid_map; touch /data/f; stat -c %u /data/f")

    result = second.run(platform)

    assert result.stdout.split() == ["0", str(FIRST), "65536", "0"], result.stderr
    assert _owner(folder / "f") == (FIRST, FIRST)
    first.ok("delete", "--force", "c")


def test_root_of_a_namespace_without_one_is_who_comes_first(
    bundle: Bundle, platform: str, folder: Path
) -> None:
    bundle.configure(_mapped)
    bundle.document["linux"]["uidMappings"] = [{**MAP, "containerID": 1000}]
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 0}
    bundle.args("sh", "-c", "id -u; touch /data/f; stat -c %u /data/f")

    result = bundle.run(platform)

    assert result.stdout.split() == ["1000", "1000"], result.stderr
    assert _owner(folder / "f") == (FIRST, FIRST)


def test_idmapped_mount_shows_other_owners(bundle: Bundle, platform: str, folder: Path) -> None:
    """The owners on the disk are those inside; the container's ids on the host are others."""
    os.chown(folder, 0, 0)
    (folder / "of three").touch()
    os.chown(folder / "of three", 3, 4)
    bundle.configure(_mapped)
    mount = bundle.document["mounts"][-1]
    mount["uidMappings"] = mount["gidMappings"] = [MAP]
    bundle.args("sh", "-c", "cd /data; stat -c '%u %g' . *; touch new; chown 5:6 new; ls -n new")

    result = bundle.run(platform)

    lines = result.stdout.splitlines()
    assert lines[:2] == ["0 0", "3 4"], result.stderr
    assert lines[2].split()[2:4] == ["5", "6"]
    assert _owner(folder / "new") == (5, 6)


def test_idmapped_mount_has_the_maps_of_the_container_or_none(
    bundle: Bundle, platform: str, folder: Path
) -> None:
    os.chown(folder, 7, 7)
    bundle.document["mounts"][-1]["options"].append("ridmap")
    bundle.args("stat", "-c", "%u", "/data")

    assert "an idmapped mount needs mappings" in bundle.run(platform).stderr
    assert bundle.configure(_mapped).run(platform).stdout == "7\n"
